//! Whole streams in the shapes that providers send, each with what must come of it: `golden/NAME.sse` and
//! `golden/NAME.events`. Written for these tests after the providers' documentation; nothing of them was recorded.

use crate::{Event, StreamError, fuzz};
use std::{fs, path::Path};

type Outcome = (Vec<Event>, Option<StreamError>);

fn read<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let outcome = fuzz::read(pieces);
    (outcome.events, outcome.error)
}

/// One line for each event, as the files have them.
fn shown((events, error): &Outcome) -> String {
    let line = |event: &Event| match event {
        Event::Text(text) => format!("text {}\n", serde_json::to_string(text).unwrap()),
        Event::Finish(reason) => format!("finish {reason:?}\n"),
        Event::Usage(used) => format!(
            "usage input={} cached_input={} cache_write={} output={} reasoning={}\n",
            used.input.get(),
            used.cached_input.get(),
            used.cache_write.get(),
            used.output.get(),
            used.reasoning.get()
        ),
        Event::Done => "done\n".to_owned(),
    };
    let error = error.iter().map(|error| format!("error {error}\n"));
    events.iter().map(line).chain(error).collect()
}

#[test]
fn f05_f06_f28_every_providers_stream_means_what_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut seen = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sse") {
            continue;
        }
        seen += 1;
        let stream = fs::read(&path).unwrap();
        let expected = fs::read_to_string(path.with_extension("events")).unwrap();
        let whole = read([stream.as_slice()]);
        assert_eq!(shown(&whole), expected, "{}", path.display());
        for size in [1, 2, 3, 5, 7, 64, 1_000] {
            assert_eq!(read(stream.chunks(size)), whole, "{} in pieces of {size}", path.display());
        }
        for end in ["\r\n", "\r"] {
            let text = String::from_utf8(stream.clone()).unwrap().replace('\n', end);
            assert_eq!(read([text.as_bytes()]), whole, "{} with {end:?}", path.display());
            assert_eq!(
                read(text.as_bytes().chunks(1)),
                whole,
                "{} with {end:?}, byte by byte",
                path.display()
            );
        }
        // The totals that the file's provider charges by are in its last usage.
        if let Some(Event::Usage(used)) = whole.0.iter().find(|event| matches!(event, Event::Usage(_))) {
            let text = String::from_utf8(stream).unwrap();
            let figure = |name: &str| {
                let rest = text.rsplit_once(name).unwrap().1;
                rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
            };
            let told = (figure(r#""prompt_tokens":"#), figure(r#""completion_tokens":"#));
            assert_eq!((used.prompt().get(), used.completion().get()), told, "{}", path.display());
        }
    }
    assert!(seen >= 26, "{seen} streams: some are missing");
}

#[test]
fn f28_a_stream_cut_after_any_byte_is_whole_only_if_all_that_counts_has_come() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for name in ["openai", "azure-asynchronous-filter", "openrouter", "deepseek", "mistral-thinking"] {
        let stream = fs::read(folder.join(name).with_extension("sse")).unwrap();
        let whole = read([stream.as_slice()]);
        assert_eq!(whole.1, None);
        for at in 0..stream.len() {
            let (events, error) = read([&stream[..at]]);
            assert!(whole.0.starts_with(&events), "{name} cut after {at} bytes");
            let complete = events.len() == whole.0.len();
            assert_eq!(error, (!complete).then_some(StreamError::Cut), "{name} cut after {at} bytes");
        }
    }
}
