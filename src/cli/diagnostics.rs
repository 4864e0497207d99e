//! Problems of topology files, as they are printed.

use std::io::{self, Write};

use crate::topology::render::{self, Style};
use crate::topology::{Diagnostic, Source};

/// Width of diagnostics, in columns, as of rustc where the terminal does not say.
pub(super) const WIDTH: usize = 140;

/// Writes diagnostics for people, and how many they are.
pub(super) fn write_diagnostics(
    sources: &[Source],
    diagnostics: &[Diagnostic],
    notices: &mut dyn Write,
) -> io::Result<()> {
    write!(notices, "{}", render::text(sources, diagnostics, Style { colour: true, width: WIDTH }))?;
    if let Some(summary) = render::summary(diagnostics) {
        writeln!(notices, "{summary}")?;
    }
    Ok(())
}
