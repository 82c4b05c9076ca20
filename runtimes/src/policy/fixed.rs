//! Always as long, whatever the function is like: what most platforms do.

use super::{Policy, Window};

#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    pub seconds: f64,
}

impl Policy for Fixed {
    fn called_after(&mut self, _: f64) {}

    fn window(&mut self) -> Window {
        Window::keep(self.seconds)
    }
}
