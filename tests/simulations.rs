//! The simulation as tests: a binary of its own, because it takes every core while it runs.

#[cfg(test)]
mod simulation;
