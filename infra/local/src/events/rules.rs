//! Rules: which events of a bus wake which function, as the template has them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Event;

/// A rule that wakes a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The function.
    pub function: String,
    /// The bus.
    pub bus: String,
    /// What an event must have: one of the values of each field, `source` or `detail-type`.
    pub pattern: BTreeMap<String, Vec<String>>,
}

impl Rule {
    /// The rules on `bus` of the template's functions. None that this stand-in does not understand is left out: it is an error.
    ///
    /// # Errors
    /// What is not understood.
    pub fn of_template(template: &str, bus: &str) -> Result<Vec<Self>, String> {
        let template: Value = serde_saphyr::from_str(template).map_err(|error| error.to_string())?;
        let mut rules = Vec::new();
        for function in values(&template, "/Resources") {
            let name = function.pointer("/Metadata/BuildProperties/Binary").and_then(Value::as_str);
            let Some(name) = name else { continue };
            for event in values(function, "/Properties/Events") {
                if event.get("Type").is_some_and(|kind| kind == "EventBridgeRule") {
                    let pattern = pattern(event.pointer("/Properties/Pattern").unwrap_or(&Value::Null))?;
                    rules.push(Self { function: name.to_owned(), bus: bus.to_owned(), pattern });
                }
            }
        }
        Ok(rules)
    }

    /// Whether an event wakes the function.
    pub(super) fn matches(&self, event: &Event) -> bool {
        let has = |(field, allowed): (&String, &Vec<String>)| match field.as_str() {
            "source" => allowed.contains(&event.source),
            _ => allowed.contains(&event.detail_type),
        };
        event.bus == self.bus && self.pattern.iter().all(has)
    }
}

/// What an object has at a place; nothing where there is none.
fn values<'a>(of: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    of.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(|all| all.values())
}

fn pattern(value: &Value) -> Result<BTreeMap<String, Vec<String>>, String> {
    let fields = value.as_object().filter(|fields| !fields.is_empty()).ok_or("a rule without a pattern")?;
    let mut pattern = BTreeMap::new();
    for (field, allowed) in fields {
        if field != "source" && field != "detail-type" {
            return Err(format!("a rule on '{field}'"));
        }
        let allowed: Vec<String> = serde_json::from_value(allowed.clone())
            .map_err(|_| format!("a rule whose '{field}' is no list of texts"))?;
        pattern.insert(field.clone(), allowed);
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::TEMPLATE;

    #[test]
    fn the_template_wakes_the_reporter_for_what_a_run_or_a_webhook_leaves_to_it_and_for_nothing_else() {
        let rules = Rule::of_template(TEMPLATE, "bus").unwrap();
        let event = |bus: &str, source: &str, detail_type: &str| Event {
            id: "1".into(),
            bus: bus.into(),
            source: source.into(),
            detail_type: detail_type.into(),
            detail: serde_json::Map::new(),
            resources: Vec::new(),
            time_s: None,
        };
        for (bus, source, detail_type, wakes) in [
            ("bus", "inkmeter.reporter", "Reporter Unfinished", 1),
            ("bus", "inkmeter.webhook", "Drain Wanted", 1),
            ("default", "inkmeter.reporter", "Reporter Unfinished", 0),
            ("default", "inkmeter.webhook", "Drain Wanted", 0),
            ("bus", "inkmeter.webhook", "Reporter Unfinished", 0),
            ("bus", "inkmeter.reporter", "Drain Wanted", 0),
            ("bus", "inkmeter.reporter", "Report Parked", 0),
        ] {
            let event = event(bus, source, detail_type);
            let woken: Vec<_> = rules.iter().filter(|rule| rule.matches(&event)).collect();
            assert_eq!(woken.len(), wakes, "{bus} {source} {detail_type}");
            assert!(woken.iter().all(|rule| rule.function == "reporter"));
        }
    }

    #[test]
    fn a_rule_that_is_not_understood_is_an_error() {
        let template = |pattern: &str| {
            format!(
                "Resources: {{F: {{Metadata: {{BuildProperties: {{Binary: f}}}}, Properties: {{Events: {{E: {{Type: \
                 EventBridgeRule, Properties: {{Pattern: {pattern}}}}}}}}}}}}}"
            )
        };
        assert_eq!(Rule::of_template(&template("{source: [a]}"), "b").map(|rules| rules.len()), Ok(1));
        for bad in ["{}", "{detail: {a: [b]}}", "{source: [{prefix: a}]}", "null"] {
            assert!(Rule::of_template(&template(bad), "b").is_err(), "{bad}");
        }
    }
}
