//! Configuration: the environment, read once, when the function starts.
//!
//! Each function has a small struct of its own with `from_env()` over [`Env`]. Whatever is missing or malformed is
//! collected and reported at once, by the variable's name and never with its value, which may be a secret.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// A value that must not be seen: `Debug` and `Display` say only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a value.
    pub fn new(value: &str) -> Self {
        Self(value.into())
    }

    /// The value, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Everything that is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment cannot be used: {}", .0.join("; "))]
pub struct InvalidConfig(Vec<String>);

/// The environment while it is read. A getter that finds its variable missing or malformed notes that and answers with
/// none; [`Env::finish`] then reports every note.
#[derive(Debug)]
pub struct Env {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

impl Env {
    /// The process's environment. A variable that is set to nothing, or to blanks, counts as not set.
    pub fn read() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            // A value that is not UTF-8 is kept in a form that no parser takes, so that it is complained about.
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    /// An environment of these variables only.
    pub fn for_testing(variables: &[(&str, &str)]) -> Self {
        Self::of(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn of(variables: impl Iterator<Item = (String, String)>) -> Self {
        let variables = variables.filter(|(_, value)| !value.trim().is_empty()).collect();
        Self { variables, problems: Vec::new() }
    }

    /// A text that must be there.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.required(name, |text| Ok::<_, fmt::Error>(text.to_owned()))
    }

    /// A text that may be there.
    pub fn text_if_set(&mut self, name: &'static str) -> Option<String> {
        self.variables.get(name).map(|text| text.trim().to_owned())
    }

    /// A secret that must be there.
    pub fn secret(&mut self, name: &'static str) -> Option<Secret> {
        self.required(name, |text| Ok::<_, fmt::Error>(Secret::new(text)))
    }

    /// A secret that may be there.
    pub fn secret_if_set(&mut self, name: &'static str) -> Option<Secret> {
        self.variables.get(name).map(|text| Secret::new(text.trim()))
    }

    /// A URL that must be there, `http` or `https`, without credentials.
    pub fn url(&mut self, name: &'static str) -> Option<reqwest::Url> {
        self.required(name, parse_url)
    }

    /// A URL that may be there, of the same form.
    pub fn url_if_set(&mut self, name: &'static str) -> Option<reqwest::Url> {
        self.parsed_if_set(name, parse_url)
    }

    /// Values separated by commas, at least one; blanks around them are dropped.
    pub fn list(&mut self, name: &'static str) -> Option<Vec<String>> {
        self.required(name, |text| {
            Some(split(text)).filter(|list| !list.is_empty()).ok_or("it lists nothing")
        })
    }

    /// A value of a type that has a textual form, or `default` where the variable is not set.
    pub fn parsed_or<T>(&mut self, name: &'static str, default: T) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        if self.variables.contains_key(name) { self.required(name, str::parse) } else { Some(default) }
    }

    /// A value that must be there, by a parser whose error does not repeat the value.
    pub fn required<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.variables.contains_key(name) {
            self.problems.push(format!("{name} is not set"));
        }
        self.parsed_if_set(name, parse)
    }

    /// A value that may be there, by a parser whose error does not repeat the value.
    pub fn parsed_if_set<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.variables.get(name)?.trim()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.complain(name, &error);
                None
            }
        }
    }

    /// Notes that a variable's value cannot be used, for a check that takes more than one of them.
    pub fn complain(&mut self, name: &'static str, why: &dyn fmt::Display) {
        self.problems.push(format!("{name}: {why}"));
    }

    /// The finished configuration.
    ///
    /// # Errors
    /// Everything that was missing or malformed.
    pub fn finish<T>(self, config: impl FnOnce() -> Option<T>) -> Result<T, InvalidConfig> {
        if self.problems.is_empty()
            && let Some(config) = config()
        {
            return Ok(config);
        }
        Err(InvalidConfig(self.problems))
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn parse_url(text: &str) -> Result<reqwest::Url, &'static str> {
    let url: reqwest::Url = text.parse().map_err(|_| "not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("not an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with credentials in it");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "read by Debug")]
    struct Config {
        table: String,
        key: Secret,
        base: reqwest::Url,
        tokens_max: u32,
        parties: Vec<String>,
    }

    fn config(mut env: Env) -> Result<Config, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let key = env.secret("KEY");
        let base = env.url("BASE_URL");
        let tokens_max = env.parsed_or("TOKENS_MAX", 1_024);
        let parties = env.list("PARTIES");
        env.finish(|| {
            Some(Config { table: table?, key: key?, base: base?, tokens_max: tokens_max?, parties: parties? })
        })
    }

    #[test]
    fn every_problem_is_named_at_once_and_no_value_is_shown() {
        let env = Env::for_testing(&[
            ("TABLE_NAME", "  "),
            ("BASE_URL", "hunter2:no"),
            ("TOKENS_MAX", "hunter2"),
            ("PARTIES", " , "),
        ]);
        let error = config(env).unwrap_err().to_string();
        assert_eq!(
            error,
            "the environment cannot be used: TABLE_NAME is not set; KEY is not set; BASE_URL: not an http or https URL; \
             TOKENS_MAX: invalid digit found in string; PARTIES: it lists nothing"
        );
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let env = Env::for_testing(&[
            ("TABLE_NAME", "inkmeter"),
            ("KEY", "hunter2"),
            ("BASE_URL", "http://127.0.0.1:1"),
            ("PARTIES", "http://a.test, http://b.test,"),
        ]);
        let config = config(env).unwrap();
        let printed = format!("{config:?}");
        assert!(printed.contains("[redacted]") && !printed.contains("hunter2"), "{printed}");
        assert_eq!(config.key.expose(), "hunter2");
        assert_eq!(config.tokens_max, 1_024);
        assert_eq!(config.parties, ["http://a.test", "http://b.test"]);
    }
}
