//! Server-sent events: bytes in, events out, as the WHATWG HTML standard section 9.2.6 reads them. Pure. Where the
//! bytes were split on their way makes no difference. Knows nothing of what an event means.

/// The longest line, and the most data of one event, in bytes. A chunk of a chat completion takes some hundred; a
/// provider that sends its answer in one piece takes some tens of thousands.
pub(crate) const EVENT_BYTES_MAX: usize = 256 * 1024;

/// One event. `id` and `retry` are for clients that reconnect, which a request that costs money must not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// The event's name is `error`.
    pub(crate) is_error: bool,
    /// Its data lines, joined by line feeds. Not necessarily UTF-8.
    pub(crate) data: Vec<u8>,
}

/// A line or an event is longer than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

/// What is known of a stream so far. Holds at most one line and one event.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    /// The last byte was a carriage return, so a line feed now ends nothing.
    after_cr: bool,
    /// The first line, which alone may begin with a byte order mark, has ended.
    past_first_line: bool,
}

impl Parser {
    /// Takes the next bytes and appends the events that they complete. An event that the stream's end leaves incomplete
    /// never comes, as the standard says.
    ///
    /// # Errors
    /// When a line or an event is too long. The events before it have been appended; the parser is of no use any more.
    pub(crate) fn push(&mut self, mut bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), EventTooLong> {
        while let Some(first) = bytes.first() {
            if self.after_cr {
                self.after_cr = false;
                if *first == b'\n' {
                    bytes = bytes.get(1..).unwrap_or_default();
                    continue;
                }
            }
            let mut pieces = bytes.splitn(2, |byte| matches!(byte, b'\r' | b'\n'));
            let piece = pieces.next().unwrap_or_default();
            if self.line.len().saturating_add(piece.len()) > EVENT_BYTES_MAX {
                return Err(EventTooLong);
            }
            self.line.extend_from_slice(piece);
            let Some(rest) = pieces.next() else { return Ok(()) };
            self.after_cr = bytes.get(piece.len()) == Some(&b'\r');
            bytes = rest;
            self.end_line(events)?;
        }
        Ok(())
    }

    /// How many bytes the parser holds on to.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.line.len() + self.event.data.len()
    }

    fn end_line(&mut self, events: &mut Vec<SseEvent>) -> Result<(), EventTooLong> {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !self.past_first_line {
            self.past_first_line = true;
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return Ok(());
        }
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let field = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        // A line that begins with a colon is a comment: its field is empty, and falls through with the unknown ones.
        self.field(field, value.strip_prefix(b" ").unwrap_or(value))
    }

    fn field(&mut self, field: &[u8], value: &[u8]) -> Result<(), EventTooLong> {
        match field {
            b"event" => self.event.is_error = value == b"error",
            b"data" => {
                if self.event.data.len().saturating_add(value.len()) >= EVENT_BYTES_MAX {
                    return Err(EventTooLong);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<SseEvent>, Result<(), EventTooLong>);

    fn parse<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            if let Err(error) = parser.push(piece, &mut events) {
                return (events, Err(error));
            }
        }
        (events, Ok(()))
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (events, end) = parse([text.as_bytes()]);
        let data: Vec<_> = events.iter().map(|event| std::str::from_utf8(&event.data).unwrap()).collect();
        assert_eq!(data, expected, "{text:?}");
        assert_eq!(end, Ok(()));
        assert_eq!(parse(text.as_bytes().chunks(1)), (events, end), "{text:?} byte by byte");
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for end in ["\n", "\r", "\r\n"] {
            check(&format!("data: a{end}{end}data: b{end}{end}"), &["a", "b"]);
        }
        check("data: a\r\n\ndata: b\n\r", &["a", "b"]);
    }

    #[test]
    fn comments_and_other_fields_are_passed_over() {
        check(": ping\n\nid: 7\nretry: 1\nfoo\nfoo: bar\n\ndata: a\n: ping\ndata: b\n\n", &["a\nb"]);
    }

    #[test]
    fn data_is_joined_by_line_feeds_and_loses_one_space() {
        check("data:a\ndata: b\ndata:  c\ndata\n\n", &["a\nb\n c\n"]);
        check("data: a:b\n\n", &["a:b"]);
        check("data\n\n", &[""]);
    }

    #[test]
    fn an_event_without_data_or_without_an_end_never_comes() {
        check("event: x\n\n", &[]);
        check("data: a", &[]);
        check("data: a\n", &[]);
        check("", &[]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_beginning_only() {
        check("\u{feff}data: a\n\n", &["a"]);
        check("\u{feff}\ndata: a\n\n\u{feff}data: b\n\n", &["a"]);
    }

    #[test]
    fn an_event_named_error_says_so_and_the_next_does_not() {
        let (events, _) = parse([b"event: error\ndata: a\n\ndata: b\n\nevent: x\ndata: c\n\n".as_slice()]);
        let errors: Vec<_> = events.iter().map(|event| event.is_error).collect();
        assert_eq!(errors, [true, false, false]);
    }

    #[test]
    fn f18_a_line_and_an_event_are_bounded() {
        let fits = format!("data:{}\n\n", "x".repeat(EVENT_BYTES_MAX - 5));
        assert_eq!(parse([fits.as_bytes()]).0.len(), 1);
        let line = format!("data: a\n\ndata:{}", "x".repeat(EVENT_BYTES_MAX - 4));
        let event = format!("data: a\n\n{}", "data: 0123456789\n".repeat(EVENT_BYTES_MAX / 10));
        for text in [line, event] {
            let whole = parse([text.as_bytes()]);
            assert_eq!((whole.0.len(), &whole.1), (1, &Err(EventTooLong)));
            assert_eq!(parse(text.as_bytes().chunks(1)), whole);
        }
        let endless = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(parse([endless.as_slice()]).1, Err(EventTooLong));
    }

    /// Text made of what a parser stumbles over.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "data:",
            "data: ",
            "data",
            "event: error",
            "event:",
            ":",
            " ",
            "\n",
            "\r",
            "\r\n",
            "\n\n",
            "\u{feff}",
            "{\"a\":1}",
            "[DONE]",
            "id: 1",
            "ü",
            "\u{1f600}",
            "retry",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn a_stream_means_the_same_wherever_it_is_split(bytes in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let whole = parse([bytes.as_slice()]);
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                prop_assert_eq!(&parse([a, b]), &whole);
            }
            prop_assert_eq!(&parse(bytes.chunks(1)), &whole);
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(&parse(pieces), &whole);
        }

        #[test]
        fn data_comes_out_as_it_went_in(lines in prop::collection::vec("[^\r\n]{0,20}", 1..5), end in prop::sample::select(vec!["\n", "\r", "\r\n"])) {
            let sent: Vec<_> = lines.iter().map(|line| format!("data: {line}{end}")).collect();
            let (events, _) = parse([format!("{}{end}", sent.concat()).as_bytes()]);
            prop_assert_eq!(events, [SseEvent { is_error: false, data: lines.join("\n").into_bytes() }]);
        }
    }
}
