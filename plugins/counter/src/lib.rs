//! Counts the events of each key and sums their amounts, and sends both on.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, OrFail, Output, plugin, state};

plugin!(handle, ports: { TOTALS = "totals" });

#[derive(Deserialize)]
struct Payment {
    /// In the smallest unit of its currency.
    amount: i64,
}

/// What is known of a key: kept as it is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Totals {
    count: u64,
    sum: i64,
}

fn handle(event: Event) -> Result<Output, Failure> {
    let payment: Payment = event.json()?;
    let place = format!("totals/{}", event.key);
    let totals = state::get_json(&place)?.unwrap_or_default();
    let totals = with(totals, &payment).or_reject("the sum is more than 64 bits hold")?;
    state::set_json(&place, &totals)?;
    Ok(TOTALS.json(&totals)?.kind("totals.changed"))
}

fn with(totals: Totals, payment: &Payment) -> Option<Totals> {
    Some(Totals { count: totals.count.checked_add(1)?, sum: totals.sum.checked_add(payment.amount)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_payments_and_sum_their_amounts() {
        let amounts = [5, -2, 40];
        let totals = amounts
            .iter()
            .fold(Totals::default(), |totals, amount| with(totals, &Payment { amount: *amount }).unwrap());
        assert_eq!(totals, Totals { count: 3, sum: 43 });
    }

    #[test]
    fn a_sum_that_does_not_fit_is_none() {
        assert_eq!(with(Totals { count: 1, sum: i64::MAX }, &Payment { amount: 1 }), None);
    }
}
