//! Publishes orders over a connection of its own, and remembers what was acknowledged.

use bytes::Bytes;
use wattle::api::PublishReceipt;
use wattle::client::{Client, ClientError, Window};
use wattle::model::event::Data;
use wattle::model::{Attribute, Event};

use crate::common::random::Random;
use crate::kill::orders::{Customer, Item, Order};

/// Orders whose events one producer makes.
const ORDERS: u64 = 6;
const BATCH_MAX: u64 = 12;

/// An event that was sent. It never is a second time: whoever does not know the outcome sends another one.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) id: String,
    /// Epoch, partition and offset, where it was acknowledged. It may be there without.
    pub(crate) place: Option<(u32, u32, u64)>,
}

pub(crate) struct Producer {
    number: u64,
    random: Random,
    next: u64,
    pub(crate) sent: Vec<Sent>,
}

/// Grows with every event of a producer.
pub(crate) fn number_of(id: &str) -> u64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}

impl Producer {
    pub(crate) fn new(number: u64, seed: u64) -> Self {
        Self { number, random: Random::new(seed ^ (number + 1).wrapping_mul(0x5851_f42d)), next: 0, sent: Vec::new() }
    }

    fn order(&mut self) -> Bytes {
        let random = &mut self.random;
        // Nobody else has these orders, so their order is this producer's.
        let order_id = format!("o{}-{}", self.number, random.below(ORDERS));
        let item = |sku: &str, qty| Item { sku: sku.into(), qty, price_cents: 5 };
        let (mut items, mut currency) = (vec![item("card", 1 + random.below(50) as u32)], "EUR");
        match random.below(40) {
            0 => items.push(item("lamp", 41)),
            1 => items = vec![item("card", u32::MAX), item("card", 9)],
            2 => currency = "CHF",
            _ => {}
        }
        let total_cents = items.iter().map(|item| u64::from(item.qty) * item.price_cents).sum();
        let status = ["created", "paid", "paid", "shipped"][random.below(4) as usize].to_owned();
        let customer = Customer { name: "Ada".into(), email: "ada@example.test".into() };
        let order = Order { order_id, status, currency: currency.into(), customer, items, total_cents };
        let mut data = serde_json::to_string(&order).unwrap();
        if random.one_in(60) {
            data = format!(r#"{{"order_id":"{}","is":"no order"}}"#, order.order_id);
        }
        self.next += 1;
        let id = format!("p{}-{}", self.number, self.next);
        self.sent.push(Sent { id: id.clone(), place: None });
        let mut event = Event { id, source: "/kill".into(), r#type: "order".into(), ..Event::default() };
        event.attributes.insert("datacontenttype".into(), Attribute::String("application/json".into()));
        event.data = Some(Data::Text(data));
        event.encode()
    }

    fn batch(&mut self) -> Vec<Bytes> {
        let count = 1 + self.random.below(BATCH_MAX);
        (0..count).map(|_| self.order()).collect()
    }

    /// Remembers where the events from `first` on are.
    fn acknowledged(&mut self, first: usize, published: &PublishReceipt) {
        for (sent, place) in self.sent[first..].iter_mut().zip(&published.places) {
            sent.place = place.offset.map(|offset| (published.epoch, place.partition, offset));
        }
    }

    /// Publishes as fast as the bus acknowledges, until it is gone. Half of the producers wait for each answer, the
    /// others have several batches on their way.
    pub(crate) async fn publish_until_it_breaks(&mut self, address: &str) {
        let Ok(client) = Client::connect(address).await else { return };
        let broken =
            if self.number.is_multiple_of(2) { self.one_by_one(&client).await } else { self.streaming(&client).await };
        match broken {
            ClientError::Lost { .. } | ClientError::Unreachable { .. } => {}
            ClientError::Refused(refused) if refused.reason == wattle::api::reason::SHUTTING_DOWN => {}
            error => panic!("there is nothing to refuse: {error:?}"),
        }
    }

    async fn one_by_one(&mut self, client: &Client) -> ClientError {
        loop {
            let first = self.sent.len();
            let batch = self.batch();
            match client.publish("shop/orders", batch).await {
                Ok(published) => self.acknowledged(first, &published),
                Err(error) => return error,
            }
        }
    }

    async fn streaming(&mut self, client: &Client) -> ClientError {
        let mut publishing = client.publishing("shop/orders", Window { batches: 8, ..Window::default() });
        // Answers come in the order of the batches.
        let mut answered = self.sent.len();
        loop {
            let batch = self.batch();
            match publishing.send(batch).await {
                Ok(answers) => {
                    for published in answers {
                        self.acknowledged(answered, &published);
                        answered += published.places.len();
                    }
                }
                Err(error) => return error,
            }
        }
    }
}
