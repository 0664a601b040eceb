//! Who may depend on whom.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Members of this workspace that a member depends on outside of its tests.
fn arrows() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let root = metadata.workspace_root.clone();
    let members: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let of = |package: &Package| {
        let folder = package.manifest_path.strip_prefix(&root).unwrap().parent().unwrap().to_string();
        let on = package
            .dependencies
            .iter()
            .filter(|on| on.kind != DependencyKind::Development && members.contains(&on.name))
            .map(|on| on.name.clone())
            .collect();
        (package.name.to_string(), (folder, on))
    };
    metadata.packages.iter().map(of).collect()
}

#[test]
fn the_arrows_are_those_of_the_architecture() {
    let arrows = arrows();
    let folder = |name: &str| arrows[name].0.as_str();
    for (name, (place, on)) in &arrows {
        let allowed = |other: &str| match place.as_str() {
            "shared/domain" | "infra/local" => false,
            // Who sends a request is asked in one place.
            "shared/edge" => other == "domain" || other == "clerk",
            // One protocol over several adapters, which functions share.
            "shared/report" => ["domain", "ledger", "stripe", "bus", "edge"].contains(&other),
            place if place.starts_with("shared/") => other == "domain",
            // The owner's tool is the product's, and no part of the stand-ins is.
            "infra/ops" => folder(other).starts_with("shared/"),
            place if place.starts_with("functions/") => folder(other).starts_with("shared/"),
            _ => true,
        };
        for other in on {
            assert!(allowed(other), "{name} must not depend on {other}");
        }
    }
    assert_eq!(folder("domain"), "shared/domain");
    assert_eq!(folder("local"), "infra/local");
}

#[test]
fn the_stand_ins_depend_on_nothing_of_the_product_even_through_others() {
    let metadata = MetadataCommand::new().exec().unwrap();
    let resolve = metadata.resolve.as_ref().unwrap();
    let local = &metadata.packages.iter().find(|package| package.name == "local").unwrap().id;
    let (mut seen, mut todo) = (BTreeSet::new(), vec![local]);
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            let node = resolve.nodes.iter().find(|node| node.id == *id).unwrap();
            todo.extend(node.deps.iter().map(|dep| &dep.pkg));
        }
    }
    let shared = metadata.workspace_root.join("shared");
    let ours = |package: &&Package| seen.contains(&package.id) && package.manifest_path.starts_with(&shared);
    let found: Vec<_> =
        metadata.packages.iter().filter(ours).map(|package| package.name.to_string()).collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_domain_has_no_runtime_no_serialization_and_no_clock() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let domain = metadata.packages.iter().find(|package| package.name == "domain").unwrap();
    let on: BTreeSet<&str> = domain
        .dependencies
        .iter()
        .filter(|on| on.kind == DependencyKind::Normal)
        .map(|on| on.name.as_str())
        .collect();
    assert_eq!(on, BTreeSet::from(["chrono", "thiserror"]));
    let chrono = domain.dependencies.iter().find(|on| on.name == "chrono").unwrap();
    assert!(!chrono.uses_default_features && chrono.features == ["std"], "chrono would bring a clock");
}
