//! The built page's files. Owns which paths are files and what type they have; must never read one that is outside of
//! the build, whatever the path says and wherever a link leads.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{plain, whole};

const INDEX: &str = "index.html";
/// The largest file that is served, in bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What a build has, by a file name's end.
const TYPES: [(&str, &str); 8] = [
    (".html", "text/html; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".svg", "image/svg+xml"),
    (".png", "image/png"),
    (".woff2", "font/woff2"),
    (".json", "application/json"),
    (".txt", "text/plain; charset=utf-8"),
];
/// What stands at `/` until there is a build.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Inkmeter</title>\
     <h1>The API runs; the page is not built yet</h1><p>In the project's folder, with Node.js:</p>\
     <pre>npm ci --prefix tests/browser\nnpm run build --prefix tests/browser</pre><p>Then load this page again.</p></html>";

/// The file at this path of the page.
pub(super) async fn answer(directory: &Path, path: &str) -> Response<Full<Bytes>> {
    let found = match relative(path) {
        Some((relative, kind)) => read(directory, &relative).await.map(|bytes| (bytes, kind)),
        None => None,
    };
    match found {
        Some((bytes, kind)) => whole(StatusCode::OK, kind, bytes),
        None if path == "/" => {
            whole(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(NOT_BUILT.as_bytes()))
        }
        None => plain(StatusCode::NOT_FOUND, "There is nothing here.\n"),
    }
}

/// The file that a path names and its type. Nothing is decoded: a name that needs it is not of a build.
fn relative(path: &str) -> Option<(PathBuf, &'static str)> {
    let path = path.strip_prefix('/')?;
    let path = if path.is_empty() { INDEX } else { path };
    let (_, kind) = TYPES.iter().find(|(end, _)| path.ends_with(end))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let good = |name: &str| !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
    path.split('/').all(good).then(|| (PathBuf::from(path), *kind))
}

async fn read(directory: &Path, relative: &Path) -> Option<Bytes> {
    let root = tokio::fs::canonicalize(directory).await.ok()?;
    let file = tokio::fs::canonicalize(root.join(relative)).await.ok()?;
    let size = tokio::fs::metadata(&file).await.ok().filter(std::fs::Metadata::is_file)?.len();
    if !file.starts_with(&root) || size > FILE_BYTES_MAX {
        return None;
    }
    tokio::fs::read(file).await.ok().map(Bytes::from)
}
