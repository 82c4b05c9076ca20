//! Words for people, on stderr.

use std::{
    fmt,
    io::{IsTerminal, Write, stderr},
};

use anstream::{AutoStream, ColorChoice};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, MietteHandlerOpts, ReportHandler};

/// One line of talk. That nobody listens is no failure.
pub(crate) fn talk(text: impl fmt::Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// A diagnostic as it is shown on stderr: in colour on a terminal unless `NO_COLOR` is set, in plain ASCII and unwrapped elsewhere.
pub(crate) fn shown(diagnostic: &dyn Diagnostic) -> String {
    let plain = !stderr().is_terminal();
    let colour = AutoStream::choice(&stderr()) != ColorChoice::Never;
    if plain {
        return shown_plain(diagnostic);
    }
    let handler = MietteHandlerOpts::new().color(colour).terminal_links(false).build();
    format!("{}", Shown { handler: &handler, diagnostic })
}

/// As files and pipes get it: an id that is broken over two lines cannot be found or copied.
pub(crate) fn shown_plain(diagnostic: &dyn Diagnostic) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_wrap_lines(false).with_links(false);
    format!("{}", Shown { handler: &handler, diagnostic })
}

/// Handlers write through `Debug`, with the formatter of whoever shows.
struct Shown<'a> {
    handler: &'a dyn ReportHandler,
    diagnostic: &'a dyn Diagnostic,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handler.debug(self.diagnostic, f)
    }
}
