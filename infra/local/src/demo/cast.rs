//! Who plays, and what they ask for. Owns no behaviour.

/// Bytes of the busy user's prompts: near the function's own limit.
const LONG_PROMPT_BYTES: usize = 30_000;
/// What the provider counts for each of them, in tokens; within what their bytes hold.
const LONG_PROMPT_TOKENS: u32 = 29_000;
/// How many of them: together above what the subscription includes.
const LONG_PROMPTS: usize = 20;
/// Subscribers.
const SUBSCRIBERS: usize = 50;
/// Requests of the hasty user: twice what a minute of the free plan allows, so that no turn of a window lets all through.
const HASTY_REQUESTS: usize = 20;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// What is asked for, with a directive to the provider's stand-in.
    pub(super) prompt: String,
    /// `type` of the request.
    pub(super) kind: &'static str,
    /// The client leaves after so many pieces of text.
    pub(super) leaves_after: Option<usize>,
}

/// One user.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    /// The user's id.
    pub(super) user: String,
    /// Whether the user is on the Pro plan.
    pub(super) subscribes: bool,
    /// Requests at the same time.
    pub(super) at_once: usize,
    /// The requests.
    pub(super) scenes: Vec<Scene>,
}

/// The user who has more to rewrite than the subscription includes.
pub(super) const BUSY: &str = "pro-01";
/// The user whose provider answer is larger than any hold.
pub(super) const OVERRUN: &str = "pro-02";
/// The free user who meets the cap.
pub(super) const CAPPED: &str = "free-capped";
/// The free user who meets the rate window.
pub(super) const HASTY: &str = "free-hasty";

fn actor(name: &str, scenes: Vec<Scene>) -> Actor {
    let user = crate::clerk::user_id(name).unwrap_or_default();
    Actor { user, subscribes: name.starts_with("pro"), at_once: 1, scenes }
}

fn scene(directive: &str, text: &str) -> Scene {
    Scene { prompt: format!("[[{directive}]] {text}"), kind: "rewrite", leaves_after: None }
}

/// Everybody.
pub(super) fn actors() -> Vec<Actor> {
    let mut actors: Vec<Actor> = (1..=SUBSCRIBERS).map(subscriber).collect();
    actors.extend((1..=3).map(|n| actor(&format!("free-{n}"), ordinary(n))));
    // 17,000 of 20,000 tokens, then a prompt whose third alone is more than what is left.
    let most = scene("prompt=exact:17000 tokens=20", &"x".repeat(17_200));
    let too_much = scene("tokens=20", &"y".repeat(12_000));
    actors.push(actor(CAPPED, vec![most, too_much]));
    actors.push(actor(HASTY, vec![scene("tokens=3", "Say it shorter."); HASTY_REQUESTS]));
    actors
}

fn subscriber(n: usize) -> Actor {
    let name = format!("pro-{n:02}");
    let mut actor = match name.as_str() {
        BUSY => {
            let directive = format!("prompt=exact:{LONG_PROMPT_TOKENS} tokens=40");
            actor(&name, vec![scene(&directive, &"z".repeat(LONG_PROMPT_BYTES)); LONG_PROMPTS])
        }
        OVERRUN => actor(&name, vec![scene("overrun=beyond tokens=40", "A kettle that sings.")]),
        _ => actor(&name, ordinary(n)),
    };
    if name == BUSY {
        actor.at_once = 4;
    }
    actor
}

/// One to four requests of mixed kind and length; every seventh user leaves the first before its end.
fn ordinary(n: usize) -> Vec<Scene> {
    let kinds = ["rewrite", "product_description", "social_post"];
    let one = |i: usize| {
        let tokens = 20 + (n * 37 + i * 53) % 180;
        let mut scene = scene(
            &format!("tokens={tokens} delay_ms=12"),
            "A kettle that sings when the water boils, in three colours, for people who forget.",
        );
        scene.kind = kinds.get((n + i) % kinds.len()).copied().unwrap_or("rewrite");
        scene.leaves_after = (n.is_multiple_of(7) && i == 0).then_some(4);
        scene
    };
    (0..=n % 4).map(one).collect()
}
