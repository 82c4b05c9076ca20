//! How long an idle instance is kept, and when one is started before anybody calls. Pure: what happened goes in, a
//! decision comes out; there is no clock here and nothing is started or ended. Times are seconds, memory is MB.
//!
//! * [`fixed`]: always as long; [`hybrid`]: by a histogram of the gaps between calls, with thresholds;
//!   [`cost_window`]: by what a cold start costs against what the memory costs meanwhile, fnbus' own;
//! * [`scarcity`]: what memory is worth, by how much of it is taken;
//! * [`greedy_dual`]: kept until memory is short, then the one that is worth least goes.

pub mod fixed;
pub mod hybrid;
pub mod cost_window;
pub mod greedy_dual;
pub mod scarcity;

/// When an instance is to be there, in seconds after an invocation has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// 0: the instance stays. Later: it ends at once, and another one is started then.
    pub from: f64,
    /// It ends when nobody has called by then.
    pub until: f64,
}

impl Window {
    /// Ends at once, and nothing is started before a call.
    pub const NOTHING: Self = Self::keep(0.0);

    pub const fn keep(seconds: f64) -> Self {
        Self { from: 0.0, until: seconds }
    }

    /// Whether an instance is there when the next call comes after so long.
    pub fn holds(self, gap: f64) -> bool {
        self.from <= gap && gap < self.until
    }

    /// For how much of that gap an instance is there and does nothing.
    pub fn idle(self, gap: f64) -> f64 {
        (gap.min(self.until) - self.from).max(0.0)
    }

    /// Whether one has been started for it when the next call comes after so long.
    pub fn starts_within(self, gap: f64) -> bool {
        self.from > 0.0 && self.from <= gap
    }
}

/// Decides for one function, by what its own calls were like.
pub trait Policy {
    /// It was called again after a gap of so many seconds, counted from the end of its last invocation; 0 when that had
    /// not ended.
    fn called_after(&mut self, gap: f64);

    /// What is to become of an instance that is idle from now.
    fn window(&mut self) -> Window;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LATER: Window = Window { from: 50.0, until: 80.0 };

    #[rstest]
    #[case::kept(Window::keep(60.0), 20.0, true, 20.0, false)]
    #[case::expired(Window::keep(60.0), 60.0, false, 60.0, false)]
    #[case::nothing(Window::NOTHING, 0.0, false, 0.0, false)]
    #[case::before_the_start(LATER, 49.0, false, 0.0, false)]
    #[case::started_before_the_call(LATER, 60.0, true, 10.0, true)]
    #[case::started_in_vain(LATER, 100.0, false, 30.0, true)]
    fn a_window_says_what_a_call_finds(
        #[case] window: Window,
        #[case] gap: f64,
        #[case] holds: bool,
        #[case] idle: f64,
        #[case] started: bool,
    ) {
        assert_eq!((window.holds(gap), window.idle(gap), window.starts_within(gap)), (holds, idle, started));
    }
}
