//! A form in Stripe's encoding: nested fields have their path in brackets.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;

/// Fields in the order in which they were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// A list: `name[0]`, `name[1]` and so on.
    pub(crate) fn list(self, name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let numbered = values.into_iter().enumerate();
        numbered.fold(self, |form, (index, value)| form.set(format!("{name}[{index}]"), value))
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            if !text.is_empty() {
                text.push('&');
            }
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            // Writing to a text cannot fail.
            let _written = write!(text, "{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn names_and_values_are_escaped() {
        let form = Form::default().set("a[b]", "x&y=é").list("c", ["1", "2"]);
        assert_eq!(form.encode(), "a%5Bb%5D=x%26y%3D%C3%A9&c%5B0%5D=1&c%5B1%5D=2");
    }
}
