//! What must hold of idempotency keys and of wishes to stop: at the call, at the answer, and at rest.

use crate::simulation::{
    checks::request_of,
    clients::{Asked, CLAIM_MS, Ending, FUNCTION_MS, Got, Heard, Request},
    world::World,
};
use domain::{CLAIM_KEPT_MS, ClaimState, HoldId, Outcome, Receipt, Tokens, Usage};
use std::collections::BTreeMap;

/// More than any two clocks differ, in milliseconds.
const CLOCKS_MS: u64 = 10_000;
/// Within this of a wish to stop, and the time that the store takes, the provider's connection is closed, in milliseconds.
const STOPPED_WITHIN_MS: u64 = 2_000;

/// What was asked and got, by request.
pub(crate) type Told<'a> = BTreeMap<u64, (&'a Asked, &'a Got)>;

/// F19 and I3: nobody calls for a key unless its claim says under which hold, while another may be at work on it, or when it
/// was paid for.
pub(crate) fn call_is_due(world: &World, number: u64, hold: Option<&HoldId>) {
    let request = world.with(|inner| inner.sent.get(number).clone());
    let Some(key) = request.key else { return };
    let noted = {
        let kept = world.store.kept();
        let claim = kept.claims.get(&(request.user.clone(), key.digest()));
        claim.and_then(|claim| match &claim.state {
            ClaimState::Running { hold, .. } => hold.as_ref().map(|hold| hold.id.clone()),
            ClaimState::Ended { .. } => None,
        })
    };
    if noted.as_ref() != hold {
        world.violated(format!("I3: request {number} calls under {hold:?}, its claim says {noted:?}"));
    }
    let ms = world.ms();
    let others: Vec<(u64, Request)> =
        world.with(|inner| inner.sent.others(number).map(|(other, sent)| (other, sent.clone())).collect());
    for (other, sent) in others {
        let (unended, charged) = world.with(|inner| {
            let receipts = &inner.journal.receipts;
            let own = |(id, receipt): &(&HoldId, &Receipt)| {
                request_of(id) == other && receipt.charged > Tokens::ZERO
            };
            let mut calls = inner.calls.of(other).iter();
            (
                calls.any(|call| !receipts.contains_key(&call.hold)),
                receipts.iter().any(|receipt| own(&receipt)),
            )
        });
        if unended && ms < sent.begun_ms + FUNCTION_MS {
            world.violated(format!("F19: request {number} calls for its key while {other} may be at work"));
        }
        if charged && ms + CLOCKS_MS < sent.begun_ms + CLAIM_KEPT_MS {
            world.violated(format!("I3: request {number} calls for its key, for which {other} was charged"));
        }
    }
}

/// A status is given after the first text, to a repeat of what was served, or to somebody who wanted no text any more.
pub(crate) fn status_is_due(world: &World, number: u64, replayed: bool) {
    let (calls, served, stopped) = world.with(|inner| {
        let stopped = inner.journal.stops.keys().any(|id| request_of(id) == number);
        (inner.calls.of(number).len(), inner.calls.served(number).is_some(), stopped)
    });
    let due = if replayed { calls == 0 } else { served || stopped };
    if !due {
        world.violated(format!("F28: request {number} has a status without a text after {calls} calls"));
    }
}

/// Counts at which moments wishes to stop come.
pub(crate) fn stop_finds(world: &World, id: &HoldId) {
    let (ended, served) = world.with(|inner| {
        (inner.journal.receipts.contains_key(id), inner.calls.served(request_of(id)).is_some())
    });
    world.saw(match (ended, served) {
        (true, _) => "stop: after the end",
        (false, true) => "stop: in the middle",
        (false, false) => "stop: before the first text",
    });
}

/// Once a stop is there, the provider's connection is closed in time.
pub(crate) fn stops_at_rest(world: &World) {
    let late = world.with(|inner| {
        let mut late = Vec::new();
        for (id, stop_ms) in &inner.journal.stops {
            let store_ms = inner.journal.looks.get(id).copied().unwrap_or(0);
            for call in inner.calls.of(request_of(id)).iter().filter(|call| call.hold == *id) {
                let by_ms = call.begun_ms.max(*stop_ms) + STOPPED_WITHIN_MS + store_ms;
                if call.closed_ms.is_some_and(|closed_ms| closed_ms > by_ms) {
                    late.push(format!(
                        "{id} was to be stopped at {stop_ms}, by {by_ms}: {:?}",
                        call.closed_ms
                    ));
                }
            }
        }
        late
    });
    for late in late {
        world.violated(format!("a stop came too late: {late}"));
    }
}

/// Whether a receipt is that of a request whose user stopped it before its first text: the prompt is charged, and no word.
pub(crate) fn was_stopped_before_text(world: &World, receipt: &Receipt) -> bool {
    let Outcome::Settled { usage: Usage::Estimated(classes), .. } = &receipt.outcome else { return false };
    classes.completion() == Tokens::ZERO && world.with(|inner| inner.journal.stops.contains_key(&receipt.id))
}

/// I3: of everything under one key within a day, one is charged at the most.
pub(crate) fn keys_at_rest(world: &World) {
    let twice = world.with(|inner| {
        let mut charged: BTreeMap<_, Vec<(u64, HoldId)>> = BTreeMap::new();
        let of_requests = |(_, receipt): &(&HoldId, &Receipt)| receipt.outcome != Outcome::Imported;
        for (id, receipt) in inner.journal.receipts.iter().filter(of_requests) {
            let request = inner.sent.get(request_of(id));
            if let Some(key) = request.key.filter(|_| receipt.charged > Tokens::ZERO) {
                let of_key = charged.entry((request.user.clone(), key.name)).or_default();
                of_key.push((request.begun_ms, id.clone()));
            }
        }
        charged.retain(|_, of_key| {
            of_key.sort();
            let near = |pair: &[(u64, HoldId)]| pair[0].0 + CLAIM_KEPT_MS > pair[1].0 + CLOCKS_MS;
            of_key.windows(2).any(near)
        });
        charged
    });
    if !twice.is_empty() {
        world.violated(format!("I3: charged twice under one key: {twice:?}"));
    }
}

/// What a repeat was given is what was given before, to the letter, for the same body.
pub(crate) fn replay_at_rest(world: &World, asked: &Asked, heard: &Heard, told: &Told<'_>) {
    let number = asked.number;
    world.saw("a repeat was given the answer again");
    let message = heard.message.as_deref().and_then(|id| HoldId::parse(id).ok());
    let Some(first) = message.as_ref().map(request_of).filter(|first| is_repeat_of(world, number, *first))
    else {
        world.violated(format!("I3: request {number} was given somebody else's answer: {heard:?}"));
        return;
    };
    let (text, receipt, ended_before) = world.with(|inner| {
        let receipt = message.as_ref().and_then(|id| inner.journal.receipts.get(id)).cloned();
        let begun_ms = inner.sent.get(number).begun_ms;
        let ended_before = inner.sent.get(first).ended_ms.is_some_and(|ended_ms| ended_ms <= begun_ms);
        let text = inner.calls.served(first).map(|call| call.text.clone());
        (text, receipt, ended_before)
    });
    // A process may die between keeping such an answer and its receipt, which is swept then.
    let stopped =
        || world.with(|inner| message.as_ref().is_some_and(|id| inner.journal.stops.contains_key(id)));
    let nothing = receipt.as_ref().is_some_and(|receipt| was_stopped_before_text(world, receipt));
    let text = if nothing || text.is_none() && stopped() { Some(String::new()) } else { text };
    if text.as_deref() != Some(heard.text.as_str()) {
        world.violated(format!("I3: request {number} was given another text than {first}"));
    }
    if let Some((id, charged)) = &heard.told
        && !receipt.is_some_and(|receipt| receipt.id.as_str() == id && receipt.charged.get() == *charged)
    {
        world.violated(format!("I3: request {number} was told of another receipt than {first}: {heard:?}"));
    }
    if let Some((_, Got::Stream(before))) = told.get(&first) {
        let is_known = ended_before && before.told.is_some();
        let ended_alike = match before.ending {
            Ending::Finish | Ending::Abort => heard.ending == before.ending,
            Ending::Error | Ending::Unheard => true,
        };
        if is_known && heard.told != before.told || !ended_alike {
            world.violated(format!("I3: request {number} was given {heard:?}, {first} {before:?}"));
        }
    }
}

fn is_repeat_of(world: &World, number: u64, first: u64) -> bool {
    world.with(|inner| {
        let (own, first_sent) = (inner.sent.get(number), inner.sent.get(first));
        number != first && own.user == first_sent.user && own.key.is_some() && own.key == first_sent.key
    })
}

/// A repeat that is refused for its key's sake was refused with reason, and took nothing.
pub(crate) fn refusal_at_rest(
    world: &World,
    asked: &Asked,
    code: &str,
    receipt: Option<&str>,
    told: &Told<'_>,
) {
    let number = asked.number;
    let with_reason = match code {
        "in_progress" => is_in_progress(world, number, told),
        "already_answered" => receipt.is_some_and(|id| was_answered(world, number, id)),
        "idempotency_key_reused" => world.with(|inner| {
            let body = |request: &Request| request.key.map(|key| key.body);
            let own = body(inner.sent.get(number));
            inner.sent.others(number).any(|(_, other)| body(other) != own)
        }),
        _ => return,
    };
    if !with_reason {
        world.violated(format!("request {number} was refused ({code}, {receipt:?}) without a reason"));
    }
    // One id is its claim's.
    if asked.last_tried() != Some(0) {
        world.violated(format!("I4: request {number} was refused ({code}) and tried to be admitted"));
    }
}

/// Whether another request with this key can have been at work: one that had not ended, or whose end the store did not take.
fn is_in_progress(world: &World, number: u64, told: &Told<'_>) -> bool {
    world.with(|inner| {
        let own = inner.sent.get(number);
        inner.sent.others(number).any(|(other, sent)| {
            let asked = told.get(&other).map(|(asked, _)| *asked);
            let unclear = asked.is_none_or(|asked| asked.died || asked.store_failures > 0);
            let at_work = sent.ended_ms.is_none_or(|ended_ms| ended_ms >= own.begun_ms);
            let until_ms = sent.begun_ms + CLAIM_MS + CLOCKS_MS;
            (unclear || at_work) && own.begun_ms <= until_ms
        })
    })
}

/// Whether this receipt is of a request with the same key and body that was served, and paid for if that is what kept its
/// answer from being given again.
fn was_answered(world: &World, number: u64, id: &str) -> bool {
    let Ok(id) = HoldId::parse(id) else { return false };
    let receipt = world.with(|inner| inner.journal.receipts.get(&id).cloned());
    let paid = receipt.is_some_and(|receipt| matches!(receipt.outcome, Outcome::Settled { .. }));
    is_repeat_of(world, number, request_of(&id)) && (paid || !world.scenario.keeps_answers)
}
