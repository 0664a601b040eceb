//! Where a command's words go, and how it ends.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// Output, diagnostics, and whoever sits at the terminal.
pub struct Console<'a> {
    /// The result.
    pub out: &'a mut dyn Write,
    /// Diagnostics.
    pub err: &'a mut dyn Write,
    /// Asks a question; none: nobody is there to answer.
    pub ask: &'a mut dyn FnMut(&str) -> Option<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed.
    Failed,
    /// Not confirmed, or the key and `--live` do not go together.
    Refused,
    /// Something was found that a person must look at.
    Found,
}

impl Exit {
    /// The process's exit code. 2 is clap's, for wrong arguments.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 3,
            Self::Found => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Console<'_> {
    /// Says why a command ended as it did, with the whole chain of causes.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn fail(&mut self, error: &dyn Error, exit: Exit) -> io::Result<Exit> {
        write!(self.err, "ops: {error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(self.err, ": {error}")?;
            cause = error.source();
        }
        writeln!(self.err)?;
        Ok(exit)
    }
}
