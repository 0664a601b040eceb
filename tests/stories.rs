//! The story as a test: a binary of its own, for it has every core to itself for a minute.

#[cfg(test)]
mod story;
