//! Builds function binaries with cargo, and says where they are.
//!
//! Must never run a stale binary: cargo decides each time what is missing or out of date.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// How cargo is called.
#[derive(Debug, Clone)]
pub struct Cargo {
    /// The program.
    pub program: PathBuf,
    /// The workspace's folder.
    pub workspace: PathBuf,
    /// Which profile the binaries are built with.
    pub profile: Profile,
}

/// A cargo profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `dev`.
    Dev,
    /// `release`.
    Release,
}

/// What is built: always as a part of the whole workspace, so that the crates of others have the features that the tests of the
/// workspace have taken, and are compiled once for both.
#[derive(Debug, Clone, Copy)]
pub enum Targets<'a> {
    /// These binaries.
    Binaries(&'a [&'a str]),
    /// One example.
    Example(&'a str),
}

/// Why there is no binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be started or read.
    #[error("cannot run {program}")]
    Run {
        /// The program that was called.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Cargo failed; what it said is above, on standard error.
    #[error("`{command}` failed with {status}; cargo says why above")]
    Failed {
        /// The whole command, to be repeated by hand.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Cargo built no such binary.
    #[error("cargo built no binary named {0}")]
    Missing(String),
}

/// A line of cargo's `--message-format json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    target: Option<Target>,
    #[serde(default)]
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Cargo {
    /// The cargo that runs or built this program, this source's workspace, and the profile of this build.
    #[expect(clippy::disallowed_methods, reason = "cargo names itself to what it runs in CARGO")]
    pub fn of_this_build() -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let profile = if cfg!(debug_assertions) { Profile::Dev } else { Profile::Release };
        Self { program: PathBuf::from(program), workspace, profile }
    }

    /// Builds what is missing or stale and returns the binaries by name. Cargo shows its progress on standard
    /// error; `progress` hears of each finished crate. Dropping the future kills cargo.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(
        &self,
        targets: Targets<'_>,
        mut progress: impl FnMut(&str),
    ) -> Result<BTreeMap<String, PathBuf>, BuildError> {
        let mut command = self.command(targets);
        let program = || self.program.display().to_string();
        let run = |source| BuildError::Run { program: program(), source };
        let mut child = command.spawn().map_err(run)?;
        let mut binaries = BTreeMap::new();
        if let Some(output) = child.stdout.take() {
            let mut lines = BufReader::new(output).lines();
            while let Some(line) = lines.next_line().await.map_err(run)? {
                // Other tools may print between cargo's messages.
                let Ok(message) = serde_json::from_str::<Message>(&line) else { continue };
                let Some(target) = message.target.filter(|_| message.reason == "compiler-artifact") else {
                    continue;
                };
                progress(&target.name);
                if let Some(executable) = message.executable {
                    binaries.insert(target.name, executable);
                }
            }
        }
        let status = child.wait().await.map_err(run)?;
        if !status.success() {
            return Err(BuildError::Failed { command: format!("{:?}", command.as_std()), status });
        }
        let wanted = match targets {
            Targets::Binaries(binaries) => binaries,
            Targets::Example(example) => &[example][..],
        };
        match wanted.iter().find(|name| !binaries.contains_key(**name)) {
            Some(name) => Err(BuildError::Missing((*name).to_owned())),
            None => Ok(binaries),
        }
    }

    fn command(&self, targets: Targets<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.workspace);
        command.args(["build", "--workspace", "--message-format", "json-render-diagnostics"]);
        match targets {
            Targets::Binaries(binaries) => {
                command.args(binaries.iter().flat_map(|binary| ["--bin", *binary]));
            }
            Targets::Example(example) => {
                command.args(["--example", example]);
            }
        }
        if self.profile == Profile::Release {
            command.arg("--release");
        }
        // Cargo sets these for what it runs; build scripts that watch them would run again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || text == "CARGO_CRATE_NAME"
            {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        command
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{BuildError, Cargo, Profile, Targets};

    fn with_program(program: &str) -> Cargo {
        Cargo { program: PathBuf::from(program), workspace: PathBuf::from("/"), profile: Profile::Dev }
    }

    #[tokio::test]
    async fn a_failed_build_says_which_command_failed() {
        let error = with_program("false").build(Targets::Binaries(&["generate"]), |_| {}).await.unwrap_err();
        let BuildError::Failed { command, status } = error else { panic!("{error:?}") };
        assert!(command.contains("generate") && !status.success(), "{command}");
    }

    #[tokio::test]
    async fn a_missing_cargo_and_a_missing_binary_are_named() {
        let error = with_program("/nonexistent/cargo")
            .build(Targets::Binaries(&["generate"]), |_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cargo"), "{error}");
        let error = with_program("true").build(Targets::Binaries(&["generate"]), |_| {}).await.unwrap_err();
        assert!(matches!(error, BuildError::Missing(name) if name == "generate"));
    }
}
