//! The NATS binding: every attribute as a lower-case `ce-` header and the data as the body (binary), or the JSON
//! format as the body (structured). There are no batches.

use bytes::Bytes;

use super::{
    InvalidEvent,
    attributes::Attributes,
    each_attribute,
    header::encode_header_value,
    http::{Mode, attribute_name, set_encoded, structured_mode},
    json,
};
use crate::event::Event;

/// Reads a message; none: it does not say it is a CloudEvent. Names are written in lower case and read in any.
pub fn read<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    body: &Bytes,
) -> Result<Option<Event>, InvalidEvent> {
    let mut attributes = Attributes::default();
    let mut binary = false;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            // it marks structured mode and nothing else: the data's type is ce-datacontenttype
            match structured_mode(value)? {
                Some(Mode::Structured) => return json::read(body).map(Some),
                Some(_) => return Err(InvalidEvent::Format { media_type: value.to_owned() }),
                None => {}
            }
        } else if let Some(attribute) = attribute_name(name) {
            binary = true;
            set_encoded(&mut attributes, &attribute, value)?;
        }
    }
    if binary { attributes.into_event(body.clone()).map(Some) } else { Ok(None) }
}

/// The headers of an event in binary mode; its body is its data.
pub fn each_header(event: &Event, mut visit: impl FnMut(&str, &str)) {
    let mut header = String::with_capacity(24);
    each_attribute(event, |name, value| {
        header.clear();
        header.push_str("ce-");
        header.push_str(name);
        visit(&header, &encode_header_value(value));
    });
}
