//! Messages of `application/vnd.amazon.eventstream`, as the clients of AWS read them. Pure.
//!
//! ```text
//! u32 length of all · u32 length of the headers · u32 CRC of these two · headers · payload · u32 CRC of all before
//! header: u8 length of the name · name · u8 7 (text) · u16 length of the value · value
//! ```
//! Numbers are big-endian.

use bytes::{BufMut, Bytes, BytesMut};

/// What a length takes that stands around headers and payload.
const AROUND: usize = 16;
/// A header whose value is text.
const TEXT: u8 = 7;

/// An event of a kind, with its payload.
pub(super) fn event(kind: &str, media_type: &str, payload: &[u8]) -> Bytes {
    let mut headers = BytesMut::new();
    for (name, value) in [(":event-type", kind), (":content-type", media_type), (":message-type", "event")] {
        headers.put_u8(name.len() as u8);
        headers.put_slice(name.as_bytes());
        headers.put_u8(TEXT);
        headers.put_u16(value.len() as u16);
        headers.put_slice(value.as_bytes());
    }
    let length = AROUND + headers.len() + payload.len();
    let mut message = BytesMut::with_capacity(length);
    message.put_u32(length as u32);
    message.put_u32(headers.len() as u32);
    message.put_u32(crc32fast::hash(&message));
    message.put_slice(&headers);
    message.put_slice(payload);
    message.put_u32(crc32fast::hash(&message));
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_lengths_and_checksums_where_clients_look_for_them() {
        let message = event("PayloadChunk", "application/octet-stream", b"{'foo':'bar'}");
        let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!(number(0) as usize, message.len());
        assert_eq!(number(8), crc32fast::hash(&message[..8]));
        let headers = number(4) as usize;
        assert_eq!(&message[12..24], b"\x0b:event-type");
        assert_eq!(&message[24..27], [7, 0, 12]);
        assert_eq!(&message[12 + headers..message.len() - 4], b"{'foo':'bar'}");
        assert_eq!(number(message.len() - 4), crc32fast::hash(&message[..message.len() - 4]));
    }
}
