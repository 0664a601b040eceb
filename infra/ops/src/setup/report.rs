//! What is printed: text as it happens, or one JSON document at the end.

use super::environment::{Variable, sam_deploy, secret_name};
use super::finalization::Finalization;
use super::plan::Step;
use super::{Done, SetupFailure};
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use stripe::Secret;
use stripe::setup::Channel;

/// What is to be printed.
pub(super) struct Report {
    /// The document; none: text.
    json: Option<Map<String, Value>>,
    live: bool,
    dry_run: bool,
}

fn steps_json(steps: &[Step]) -> Value {
    steps.iter().map(|step| json!({ "action": step.action.to_string(), "why": step.why })).collect()
}

impl Report {
    pub(super) fn new(json: bool, live: bool, dry_run: bool) -> Self {
        Self { json: json.then(Map::new), live, dry_run }
    }

    fn mode(&self) -> &'static str {
        if self.live { "live" } else { "test" }
    }

    /// What is to be done.
    pub(super) fn plan(&mut self, out: &mut dyn Write, steps: &[Step]) -> io::Result<()> {
        let mode = self.mode();
        if let Some(document) = &mut self.json {
            document.insert("mode".into(), mode.into());
            document.insert("plan".into(), steps_json(steps));
            return Ok(());
        }
        if steps.is_empty() {
            return writeln!(out, "Stripe ({mode}) is as it should be: nothing to do.");
        }
        writeln!(out, "To do at Stripe ({mode}):")?;
        for step in steps {
            writeln!(out, "  {}\n      because {}", step.action, step.why)?;
        }
        writeln!(out)
    }

    /// A step that was done.
    pub(super) fn step(&self, out: &mut dyn Write, step: &Step) -> io::Result<()> {
        if self.json.is_some() { Ok(()) } else { writeln!(out, "done: {}", step.action) }
    }

    /// A secret that was just made.
    pub(super) fn secret(&self, out: &mut dyn Write, channel: Channel, secret: &Secret) -> io::Result<()> {
        if self.json.is_none() {
            writeln!(out, "{}={}", secret_name(channel), secret.expose())?;
            out.flush()?;
        }
        Ok(())
    }

    /// What the functions have to be told, and what to look at.
    pub(super) fn result(
        &mut self,
        out: &mut dyn Write,
        done: &[Step],
        variables: &[Variable],
        finalization: &Finalization,
    ) -> io::Result<()> {
        let known = || variables.iter().filter_map(|variable| Some((variable, variable.value.as_ref()?)));
        let unknown = || variables.iter().filter(|variable| variable.value.is_none());
        if let Some(document) = &mut self.json {
            let environment: Map<String, Value> =
                known().map(|(variable, value)| (variable.name.into(), value.as_str().into())).collect();
            let unknown: Vec<&str> = unknown().map(|variable| variable.name).collect();
            document.insert("done".into(), steps_json(done));
            document.insert("environment".into(), environment.into());
            document.insert("notShown".into(), unknown.into());
            document.insert("samDeploy".into(), sam_deploy(variables).into());
            let finalization = json!({ "wrong": finalization.is_wrong(), "seen": finalization.to_string() });
            document.insert("finalization".into(), finalization);
            return Ok(());
        }
        if self.dry_run {
            writeln!(out, "A dry run: nothing was done.")?;
        }
        writeln!(out, "\nFor the environment of the functions:")?;
        for (variable, value) in known() {
            writeln!(out, "{}={value}", variable.name)?;
        }
        for variable in unknown().filter(|variable| variable.secret) {
            let (name, when_lost) = (variable.name, variable.when_lost);
            if self.dry_run {
                let once = "is shown once, by the run that makes its endpoint";
                writeln!(out, "# {name} {once}; if that was before and it is lost: {when_lost}")?;
            } else {
                let once = "was shown when its endpoint was made";
                writeln!(out, "# {name} {once}; if it is lost, run this again with {when_lost}")?;
            }
        }
        writeln!(out, "\n{}", sam_deploy(variables))?;
        writeln!(out, "\nInvoices: {finalization}.")
    }

    /// What was done before it failed. A secret in it would otherwise be lost.
    pub(super) fn failed(&mut self, done: &Done, failure: &SetupFailure) {
        let mode = self.mode();
        if let Some(document) = &mut self.json {
            let secrets: Map<String, Value> = done
                .secrets
                .iter()
                .map(|(channel, secret)| (secret_name(*channel).into(), secret.expose().into()))
                .collect();
            document.insert("mode".into(), mode.into());
            document.insert("done".into(), steps_json(&done.steps));
            document.insert("environment".into(), secrets.into());
            document.insert("error".into(), failure.to_string().into());
        }
    }

    /// Prints the document, if it is one.
    pub(super) fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(document) = self.json {
            serde_json::to_writer_pretty(&mut *out, &Value::Object(document))?;
            writeln!(out)?;
        }
        out.flush()
    }
}
