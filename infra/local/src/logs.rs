//! Owns where the output of function processes goes: line by line, each line and each file bounded.
//!
//! Must never hold a function up for long or grow without bound; what does not fit is cut, with a mark.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// The longest line that is kept, in bytes; the rest of a longer one is dropped.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The largest log file of one function, in bytes; what comes after is dropped.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One line that a function process wrote to its standard output or error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The function's name.
    pub function: String,
    /// The process that wrote it.
    pub pid: u32,
    /// The line without its end, at most [`LINE_BYTES_MAX`] long.
    pub text: String,
}

/// Where lines go.
#[derive(Clone)]
pub struct LogSink(Kind);

#[derive(Clone)]
enum Kind {
    Discard,
    Callback(Arc<dyn Fn(LogLine) + Send + Sync>),
    Directory(Arc<Directory>),
}

struct Directory {
    path: PathBuf,
    files: Mutex<BTreeMap<String, LogFile>>,
}

struct LogFile {
    file: File,
    written: u64,
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Discard => f.write_str("LogSink::Discard"),
            Kind::Callback(_) => f.write_str("LogSink::Callback"),
            Kind::Directory(directory) => write!(f, "LogSink::Directory({})", directory.path.display()),
        }
    }
}

impl LogSink {
    /// Drops every line.
    pub fn discard() -> Self {
        Self(Kind::Discard)
    }

    /// Hands every line to `callback`, which must not block.
    pub fn callback(callback: impl Fn(LogLine) + Send + Sync + 'static) -> Self {
        Self(Kind::Callback(Arc::new(callback)))
    }

    /// Appends each line to `<path>/<function>.log`, at most [`FILE_BYTES_MAX`] per run.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn directory(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(Kind::Directory(Arc::new(Directory { path: path.to_path_buf(), files: Mutex::default() }))))
    }

    fn write(&self, line: LogLine) {
        match &self.0 {
            Kind::Discard => {}
            Kind::Callback(callback) => callback(line),
            // A log that cannot be written (full disk) must not take the function down with it.
            Kind::Directory(directory) => directory.append(&line).unwrap_or_default(),
        }
    }
}

impl Directory {
    fn append(&self, line: &LogLine) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.contains_key(&line.function) {
            let path = self.path.join(format!("{}.log", line.function));
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            files.insert(line.function.clone(), LogFile { file, written: 0 });
        }
        let Some(log) = files.get_mut(&line.function) else { return Ok(()) };
        let text = format!("[{}] {}\n", line.pid, line.text);
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if log.written.saturating_add(length) > FILE_BYTES_MAX {
            return Ok(());
        }
        log.written = log.written.saturating_add(length);
        log.file.write_all(text.as_bytes())
    }
}

/// Forwards `output` line by line until it ends.
pub(crate) async fn forward(output: impl AsyncRead + Unpin, function: String, pid: u32, sink: LogSink) {
    let mut reader = BufReader::new(output);
    let mut line: Vec<u8> = Vec::new();
    loop {
        let (taken, ended) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => {
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let text = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
                let room = LINE_BYTES_MAX.saturating_sub(line.len()).min(text.len());
                line.extend_from_slice(text.get(..room).unwrap_or_default());
                (end.map_or(buffer.len(), |end| end.saturating_add(1)), end.is_some())
            }
        };
        reader.consume(taken);
        if ended {
            sink.write(to_line(&function, pid, &line));
            line.clear();
        }
    }
    if !line.is_empty() {
        sink.write(to_line(&function, pid, &line));
    }
}

fn to_line(function: &str, pid: u32, text: &[u8]) -> LogLine {
    LogLine { function: function.to_owned(), pid, text: String::from_utf8_lossy(text).into_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{LINE_BYTES_MAX, LogSink, forward};

    async fn lines(output: &[u8]) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = LogSink::callback({
            let seen = Arc::clone(&seen);
            move |line| seen.lock().unwrap().push(line.text)
        });
        forward(output, "f".to_owned(), 1, sink).await;
        seen.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn output_is_forwarded_line_by_line_with_its_unfinished_last_line() {
        assert_eq!(lines(b"one\n\ntwo\nthree").await, ["one", "", "two", "three"]);
    }

    #[tokio::test]
    async fn f18_an_endless_line_is_cut() {
        let mut output = vec![b'x'; LINE_BYTES_MAX * 3];
        output.extend_from_slice(b"\nnext\n");
        let lines = lines(&output).await;
        assert_eq!(lines[0].len(), LINE_BYTES_MAX);
        assert_eq!(lines[1], "next");
    }

    #[tokio::test]
    async fn a_directory_gets_one_file_for_each_function() {
        let directory = tempfile::tempdir().unwrap();
        let sink = LogSink::directory(directory.path()).unwrap();
        forward(&b"hello\n"[..], "generate".to_owned(), 7, sink).await;
        let text = std::fs::read_to_string(directory.path().join("generate.log")).unwrap();
        assert_eq!(text, "[7] hello\n");
    }
}
