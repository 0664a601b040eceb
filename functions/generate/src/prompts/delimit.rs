//! Where the user's words begin and end. Within the delimiters there can be none: whoever writes their names, in whatever
//! case, gets them back with a hyphen, so that the words after them are still words within.

/// What stands around the user's text.
pub(super) const MATERIAL: &str = "user_material";
/// What stands around the user's description of the readers.
pub(super) const AUDIENCE: &str = "user_audience";
/// The part of the names before their underscore, and the parts after it.
const FIRST: &str = "user";
const SECOND: [&str; 2] = ["material", "audience"];

/// A text between delimiters of this name.
pub(super) fn delimited(name: &str, text: &str) -> String {
    format!("<{name}>\n{}\n</{name}>", harmless(text))
}

/// A text without control characters but for tabs and line feeds, and without the delimiters' names. It is never longer than it
/// was.
pub(super) fn harmless(text: &str) -> String {
    // The order matters: what a control character divides is a name without it.
    let text = printable(text);
    let mut pieces = text.split('_');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_name = ends_with(&out, FIRST) && SECOND.iter().any(|second| starts_with(piece, second));
        out.push(if is_name { '-' } else { '_' });
        out.push_str(piece);
    }
    out
}

/// Line ends become line feeds, other control characters go.
fn printable(text: &str) -> String {
    let kept = |character: char| matches!(character, '\n' | '\t') || !character.is_control();
    text.replace("\r\n", "\n").replace('\r', "\n").chars().filter(|character| kept(*character)).collect()
}

fn ends_with(text: &str, end: &str) -> bool {
    let from = text.len().checked_sub(end.len());
    from.and_then(|from| text.as_bytes().get(from..))
        .is_some_and(|found| found.eq_ignore_ascii_case(end.as_bytes()))
}

fn starts_with(text: &str, start: &str) -> bool {
    text.as_bytes().get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start.as_bytes()))
}
