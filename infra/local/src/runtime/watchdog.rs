//! Owns the promise that no function process outlives the cloud, even if the cloud itself is killed.
//!
//! A killed process cannot clean up, and a Lambda runtime that serves many requests at once polls for ever when
//! its Runtime API is gone. So a shell holds the read end of a pipe; when the cloud dies, however it dies, the
//! pipe ends and the shell kills the process groups that are still on its list.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

/// Each line is `+<group>` or `-<group>`.
const SCRIPT: &str = r#"
groups=" "
while read -r line; do
  group=${line#?}
  case $line in
    +*) groups="$groups$group " ;;
    -*) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
"#;

/// The watchdog shell. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Watchdog {
    shell: Arc<Shell>,
}

#[derive(Debug)]
struct Shell {
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The pipe has ended: the shell kills what is left on its list and exits at once.
        self.child.lock().unwrap_or_else(PoisonError::into_inner).wait().ok();
    }
}

impl Watchdog {
    /// Starts the shell, in a group of its own: Ctrl-C must not reach it.
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let stdin = Mutex::new(child.stdin.take());
        Ok(Self { shell: Arc::new(Shell { child: Mutex::new(child), stdin }) })
    }

    /// Puts a process group under watch.
    pub(crate) fn watch(&self, group: u32) {
        self.tell(&format!("+{group}\n"));
    }

    /// Takes a process group off the list, because its process has ended.
    pub(crate) fn forget(&self, group: u32) {
        self.tell(&format!("-{group}\n"));
    }

    fn tell(&self, line: &str) {
        let mut stdin = self.shell.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = stdin.as_mut()
            && let Err(error) = pipe.write_all(line.as_bytes())
        {
            tracing::warn!(%error, "the watchdog is gone: processes may outlive this one if it is killed");
            *stdin = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt as _, ExitStatusExt as _},
        process::{Child, Command},
    };

    use super::Watchdog;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_on_the_list_dies_with_the_pipe_and_nothing_else_does() {
        let (mut watched, mut forgotten, mut last) = (sleeper(), sleeper(), sleeper());
        let watchdog = Watchdog::start().unwrap();
        watchdog.watch(watched.id());
        watchdog.watch(forgotten.id());
        watchdog.watch(last.id());
        watchdog.forget(forgotten.id());
        drop(watchdog);
        assert_eq!(watched.wait().unwrap().signal(), Some(9));
        assert_eq!(last.wait().unwrap().signal(), Some(9));
        assert!(forgotten.try_wait().unwrap().is_none());
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
    }
}
