//! Sample events.

use bytes::Bytes;

use crate::model::{Attribute, Event, event::Data};

/// An order that passes all of `topologies/orders.yaml`, with about 260 bytes of JSON.
pub(super) fn order(number: usize) -> Bytes {
    let id = format!("b-{number:08}");
    let data = format!(
        concat!(
            r#"{{"order_id":"{id}","status":"paid","currency":"EUR","#,
            r#""customer":{{"name":"Mila Horak","email":"mila@example.test"}},"#,
            r#""items":[{{"sku":"rug","qty":2,"price_cents":8900}},{{"sku":"vase","qty":1,"price_cents":1450}}],"#,
            r#""total_cents":19250}}"#
        ),
        id = id
    );
    event(&id, "order.paid", data.into())
}

/// An event with `data_bytes` bytes of data.
pub(super) fn plain(number: usize, data_bytes: usize) -> Bytes {
    event(&format!("b-{number:08}"), "bench", vec![b'x'; data_bytes].into())
}

fn event(id: &str, r#type: &str, data: Bytes) -> Bytes {
    let content_type = Attribute::String("application/json".into());
    let event = Event {
        id: id.to_owned(),
        source: "/bench".to_owned(),
        r#type: r#type.to_owned(),
        attributes: [("datacontenttype".to_owned(), content_type)].into(),
        data: Some(Data::Binary(data)),
    };
    event.encode()
}
