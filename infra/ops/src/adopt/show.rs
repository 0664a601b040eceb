//! What is printed: text as it happens, or one JSON document at the end.

use super::apply::{AdoptError, Ended, How};
use super::mapping::Mapped;
use super::plan::{Obstacle, Plan, Step};
use edge::log::chain;
use serde_json::{Value, json};
use std::io::{self, Write};

/// How many customers ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// For whom something is to be done.
    pub(super) to_do: usize,
    /// For whom nothing is.
    pub(super) as_they_should: usize,
    /// Of whom something was done, and nothing is left.
    pub(super) done: usize,
    /// Whom something stands in the way of.
    pub(super) refused: usize,
    /// Of whom something failed.
    pub(super) failed: usize,
}

/// What is to be printed.
pub(super) struct Show {
    json: bool,
    mode: &'static str,
    dry_run: bool,
    plan: Vec<Value>,
    ended: Vec<Value>,
    pub(super) counts: Counts,
}

impl Show {
    pub(super) fn new(json: bool, live: bool, dry_run: bool) -> Self {
        let mode = if live { "live" } else { "test" };
        Self { json, mode, dry_run, plan: Vec::new(), ended: Vec::new(), counts: Counts::default() }
    }

    /// What is to be done about a customer.
    pub(super) fn plan(
        &mut self,
        out: &mut dyn Write,
        mapped: &Mapped,
        plan: &Result<Plan, Obstacle>,
    ) -> io::Result<()> {
        let count = match plan {
            Ok(plan) if plan.steps.is_empty() => &mut self.counts.as_they_should,
            Ok(_) => &mut self.counts.to_do,
            Err(_) => &mut self.counts.refused,
        };
        *count += 1;
        if self.json {
            let (mut entry, what) = (
                named(mapped),
                match plan {
                    Ok(plan) => json!({ "steps": words(&plan.steps), "notes": plan.notes }),
                    Err(obstacle) => json!({ "refused": obstacle.to_string() }),
                },
            );
            merge(&mut entry, what);
            self.plan.push(entry);
            return Ok(());
        }
        match plan {
            Ok(plan) if plan.steps.is_empty() && plan.notes.is_empty() => Ok(()),
            Ok(plan) => {
                writeln!(out, "{} is {}", mapped.customer, mapped.user)?;
                for step in &plan.steps {
                    writeln!(out, "  {step}")?;
                }
                plan.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
            }
            Err(obstacle) => refused(out, mapped, obstacle),
        }
    }

    /// That what there is of a customer cannot be read.
    pub(super) fn unread(
        &mut self,
        out: &mut dyn Write,
        mapped: &Mapped,
        error: &AdoptError,
    ) -> io::Result<()> {
        self.counts.failed += 1;
        let error = format!("what there is of it cannot be read: {}", chain(error));
        if self.json {
            let mut entry = named(mapped);
            merge(&mut entry, json!({ "error": error }));
            self.plan.push(entry);
            return Ok(());
        }
        writeln!(out, "NOT DONE: {} (line {}): {error}", mapped.customer, mapped.line)
    }

    /// How it ended for a customer.
    pub(super) fn ended(&mut self, out: &mut dyn Write, mapped: &Mapped, ended: &Ended) -> io::Result<()> {
        let count = match &ended.how {
            How::Done => &mut self.counts.done,
            How::Refused(_) => &mut self.counts.refused,
            How::Failed(..) | How::Unclear => &mut self.counts.failed,
        };
        *count += 1;
        let error = match &ended.how {
            How::Done => None,
            How::Refused(obstacle) => Some(obstacle.to_string()),
            How::Failed(Some(step), error) => Some(format!("{step}: {}", chain(error))),
            How::Failed(None, error) => Some(chain(error)),
            How::Unclear => Some("answers were lost again and again".to_owned()),
        };
        if self.json {
            let mut entry = named(mapped);
            merge(&mut entry, json!({ "done": words(&ended.done), "error": error }));
            self.ended.push(entry);
            return Ok(());
        }
        match error {
            None => writeln!(out, "done: {} is {}", mapped.customer, mapped.user),
            Some(error) => {
                writeln!(out, "NOT DONE: {} (line {}): {error}", mapped.customer, mapped.line)?;
                ended.done.iter().try_for_each(|step| writeln!(out, "  done: {step}"))
            }
        }
    }

    /// What it all comes to.
    pub(super) fn finish(&self, out: &mut dyn Write, error: Option<&str>) -> io::Result<()> {
        let Counts { to_do, as_they_should, done, refused, failed } = self.counts;
        if self.json {
            let document = json!({
                "mode": self.mode,
                "dryRun": self.dry_run,
                "plan": self.plan,
                "customers": self.ended,
                "counts": {
                    "toDo": to_do, "nothingToDo": as_they_should, "done": done, "refused": refused, "failed": failed,
                },
                "error": error,
            });
            serde_json::to_writer_pretty(&mut *out, &document)?;
            return writeln!(out);
        }
        let left = to_do.saturating_sub(done);
        writeln!(
            out,
            "{} ({}): {as_they_should} as they should be, {done} done, {left} to do, {refused} refused, {failed} failed",
            if self.dry_run { "A dry run: nothing was done" } else { "Customers" },
            self.mode
        )
    }
}

fn refused(out: &mut dyn Write, mapped: &Mapped, obstacle: &Obstacle) -> io::Result<()> {
    writeln!(out, "REFUSED: {} (line {}): {obstacle}", mapped.customer, mapped.line)
}

fn named(mapped: &Mapped) -> Value {
    json!({ "line": mapped.line, "customer": mapped.customer.as_str(), "user": mapped.user.as_str() })
}

fn words(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
