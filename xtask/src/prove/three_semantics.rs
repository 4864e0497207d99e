//! What each `delivery` promises, with the bus killed while it works.
//!
//! Each payment has an amount of its own, and a handler emits the sum so far: so what one was given is the steps
//! between the sums of an account, whatever was lost or came twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bus::{Bus, Stored};
use super::{Given, Outcome};

const TREE: &str = "three-semantics.yaml";
const NAMES: [&str; 3] = ["semantics/most", "semantics/least", "semantics/exact"];
/// How often the bus is killed.
pub(super) const KILLS: usize = 4;
/// The events that each subscriber has handled since its start when the bus is killed.
const HANDLED: u64 = 300;
/// The producer's batch, in lines, and the pause between batches. It publishes until the bus is killed.
const PACE: (usize, Duration) = (10, Duration::from_millis(3));
/// Maximum of lines published before a kill. On a slow machine, on which a status takes seconds, the backlog would
/// otherwise take minutes.
const GIVEN_MAX: usize = 20_000;
/// After a kill the producer repeats this number of lines, since it does not know which were stored.
const AGAIN: usize = 200;

/// What was given to a handler.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    given: usize,
    lost: usize,
    doubled: usize,
    /// Accounts whose payments came in another order.
    disordered: usize,
}

pub(super) fn run(given: &Given) -> Outcome<String> {
    run_with(|_| given)
}

/// The same where each start has a program of its own: the starts before each kill, by number, and the last one.
pub(super) fn run_with<'a>(given: impl Fn(usize) -> &'a Given) -> Outcome<String> {
    let load = Load::of(&given(KILLS).input("three-semantics.ndjson")?)?;
    let mut published = 0_usize;
    for kill in 0..KILLS {
        let mut bus = Bus::start(given(kill), &[TREE], "data")?;
        let mut producer = bus.producer("payments")?;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = published.saturating_sub(AGAIN);
                let end = next + GIVEN_MAX;
                while next < end && load.lines(next..next + PACE.0).all(|line| producer.give(&line)) {
                    next += PACE.0;
                    std::thread::sleep(PACE.1);
                }
                published = published.max(next);
            });
            let at_work = bus.until("each has handled some", |all| {
                all.iter().filter(|of| NAMES.contains(&of.name())).all(|of| of.number("handled") >= HANDLED)
            });
            // also where that failed: the producer ends with the bus
            bus.kill().and(at_work)
        })?;
        producer.end()?;
    }
    let bus = Bus::start(given(KILLS), &[TREE], "data")?;
    let mut producer = bus.producer("payments")?;
    if !load.lines(0..published).all(|line| producer.give(&line)) || !producer.end()? {
        return Err("the producer was refused".to_owned());
    }
    bus.settled(&NAMES)?;
    let payments = steps(&bus.tail("payments")?, |event| event.data("amount").as_i64())?;
    let taken_in: usize = payments.values().map(Vec::len).sum();
    if taken_in < published || taken_in > published + PACE.0 {
        return Err(format!("{taken_in} payments are there, of {published} that were published"));
    }
    let counted = |topic: &str| {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        let made = steps(&bus.tail(topic)?, |event| {
            let (before, sum) = (sums.entry(event.key.clone()).or_default(), event.data("sum").as_i64()?);
            Some(sum - std::mem::replace(before, sum))
        })?;
        compare(&payments, &made)
    };
    let (most, least, exact) = (counted("totals.most")?, counted("totals.least")?, counted("totals.exact")?);
    let shown = |name: &str, of: &Counted| format!("{name} lost {} and doubled {}", of.lost, of.doubled);
    let line = format!(
        "{taken_in} payments, the bus killed {KILLS} times under load: {}; {}; {}",
        shown("at_most_once", &most),
        shown("at_least_once", &least),
        shown("exactly_once", &exact)
    );
    if most.lost == 0 {
        // At each kill several lanes had said durably where they are, and not yet what came of it.
        return Err(format!("{line}; at_most_once lost nothing: it was given again what it had been given already"));
    }
    let is_kept = most.doubled == 0 && least.lost == 0 && exact.lost + exact.doubled == 0;
    let is_ordered = [&most, &least, &exact].iter().all(|of| of.disordered == 0);
    match (is_kept, is_ordered) {
        (true, true) => Ok(line),
        (true, false) => Err(format!("{line}; payments of an account came in another order")),
        (false, _) => Err(line),
    }
}

/// The input over and over, each line with an id and an amount of its own: events and their data.
struct Load(Vec<(Map<String, Value>, Map<String, Value>)>);

impl Load {
    fn of(input: &[String]) -> Outcome<Self> {
        let parsed = |line: &String| {
            let mut event: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
            match event.remove("data") {
                Some(Value::Object(data)) => Ok((event, data)),
                _ => Err(format!("a line has no data: {line}")),
            }
        };
        Ok(Self(input.iter().map(parsed).collect::<Outcome<_>>()?))
    }

    fn lines(&self, numbers: Range<usize>) -> impl Iterator<Item = String> {
        let events = self.0.iter().cycle().skip(numbers.start % self.0.len().max(1));
        events.cloned().zip(numbers).map(|((mut event, mut data), number)| {
            event.insert("id".to_owned(), json!(format!("p-{number:06}")));
            data.insert("amount".to_owned(), json!(number + 1));
            event.insert("data".to_owned(), data.into());
            Value::from(event).to_string()
        })
    }
}

/// Amounts by account, in the order of the topic.
fn steps(events: &[Stored], mut amount: impl FnMut(&Stored) -> Option<i64>) -> Outcome<BTreeMap<String, Vec<i64>>> {
    let mut by_account: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        let amount = amount(event).ok_or_else(|| format!("not as it was made: {}", event.event))?;
        by_account.entry(event.key.clone()).or_default().push(amount);
    }
    Ok(by_account)
}

fn compare(payments: &BTreeMap<String, Vec<i64>>, made: &BTreeMap<String, Vec<i64>>) -> Outcome<Counted> {
    let mut counted = Counted::default();
    for (account, paid) in payments {
        let given = made.get(account).map(Vec::as_slice).unwrap_or_default();
        let (of_account, mut seen, mut firsts) = (paid.iter().collect::<BTreeSet<_>>(), BTreeSet::new(), Vec::new());
        for amount in given {
            // what is emitted twice from one state is a step of nothing
            if *amount != 0 && !of_account.contains(amount) {
                return Err(format!("account {account} was given {amount}, which nobody paid"));
            }
            match *amount != 0 && seen.insert(*amount) {
                true => firsts.push(*amount),
                false => counted.doubled += 1,
            }
        }
        counted.given += given.len();
        counted.lost += paid.iter().filter(|amount| !seen.contains(amount)).count();
        let kept: Vec<_> = paid.iter().copied().filter(|amount| seen.contains(amount)).collect();
        counted.disordered += usize::from(kept != firsts);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(amounts: &[i64]) -> BTreeMap<String, Vec<i64>> {
        BTreeMap::from([("a".to_owned(), amounts.to_vec())])
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_counted() {
        let compared = |made: &[i64]| compare(&of(&[1, 2, 3]), &of(made));
        let counted = |given, lost, doubled, disordered| Ok(Counted { given, lost, doubled, disordered });
        assert_eq!(compared(&[1, 2, 3]), counted(3, 0, 0, 0));
        assert_eq!(compared(&[1, 3]), counted(2, 1, 0, 0));
        assert_eq!(compared(&[1, 2, 2, 3]), counted(4, 0, 1, 0));
        assert_eq!(compared(&[1, 0, 2, 3]), counted(4, 0, 1, 0));
        assert_eq!(compared(&[2, 1, 3]), counted(3, 0, 0, 1));
        assert!(compared(&[1, 5]).is_err(), "two at once are none of them");
    }
}
