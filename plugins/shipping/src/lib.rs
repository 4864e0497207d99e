//! Packs reserved orders into parcels, one event for each.
//!
//! `config: { units_per_parcel: 20 }` says how much a parcel holds.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Outputs, config, plugin};

plugin!(handle, ports: { SHIPPED = "shipped" });

config! {
    /// How it packs.
    struct Settings {
        /// Units that a parcel holds.
        units_per_parcel: u32 = 20,
    }
}

#[derive(Deserialize)]
struct Reservation {
    order_id: String,
    customer: Customer,
    units: u32,
}

#[derive(Clone, Deserialize, Serialize)]
struct Customer {
    name: String,
    email: String,
}

#[derive(Serialize)]
struct Parcel {
    order_id: String,
    /// "2/3": the second of three.
    part: String,
    customer: Customer,
    units: u32,
    tracking: String,
}

fn handle(event: Event) -> Result<Outputs, Failure> {
    let reservation: Reservation = event.json()?;
    let sizes = pack(reservation.units, Settings::get()?.units_per_parcel);
    let parcels = sizes.len();
    (1..)
        .zip(sizes)
        .map(|(number, units)| {
            let tracking = format!("WTL-{}-{number}", reservation.order_id);
            let parcel = Parcel {
                order_id: reservation.order_id.clone(),
                part: format!("{number}/{parcels}"),
                customer: reservation.customer.clone(),
                units,
                tracking: tracking.clone(),
            };
            Ok(SHIPPED.json(&parcel)?.kind("parcel.shipped").attribute("subject", &tracking))
        })
        .collect::<Result<_, Failure>>()
}

/// How many units go into each parcel: full ones first.
fn pack(units: u32, units_per_parcel: u32) -> Vec<u32> {
    let units_per_parcel = units_per_parcel.max(1);
    let full = units / units_per_parcel;
    let rest = units % units_per_parcel;
    (0..full).map(|_| units_per_parcel).chain((rest > 0).then_some(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_are_filled_before_another_is_begun() {
        assert_eq!(pack(45, 20), [20, 20, 5]);
        assert_eq!(pack(40, 20), [20, 20]);
        assert_eq!(pack(0, 20), Vec::<u32>::new());
    }
}
