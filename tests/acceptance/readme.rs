//! README says what is so.

const README: &str = include_str!("../../README.md");
const PROBLEMS: &str = include_str!("../../shared/edge/src/problem.rs");

#[test]
fn readme_lists_every_problem_code() {
    // The codes as the one table in the code spells them: `Self::X => "code"`.
    let codes: Vec<&str> = PROBLEMS
        .lines()
        .skip_while(|line| !line.contains("fn as_str"))
        .take_while(|line| !line.contains("fn status"))
        .filter_map(|line| line.split_once("=> \"")?.1.split_once('"').map(|(code, _)| code))
        .collect();
    assert!(codes.len() > 10, "the table was not found: {codes:?}");
    for code in codes {
        assert!(README.contains(&format!("| `{code}` |")), "README's API section lacks `{code}`");
    }
    assert!(!README.contains('@'), "a placeholder was left");
}
