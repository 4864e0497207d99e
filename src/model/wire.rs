//! The part of the protobuf wire format that CloudEvents need: varints and length-delimited fields.
//!
//! Events are stored in the CloudEvents protobuf format as received, and the hot path only reads parts of them. A full
//! decoder would allocate a map of attributes for each event; this one returns slices.

/// Wire type of `int32`, `bool` and enums.
pub(super) const VARINT: u8 = 0;
/// Wire type of strings, bytes and messages.
pub(super) const LENGTH_DELIMITED: u8 = 2;

/// A field on the wire.
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed-width field, which events do not have; skipped.
    Fixed,
}

/// Reads fields in order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// The bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedMessage;

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedMessage> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(MalformedMessage)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, MalformedMessage> {
        // Nearly all tags and lengths of an event are one byte.
        if let [byte, tail @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = tail;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().ok_or(MalformedMessage)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // the tenth byte has room for one bit only
                return if shift == 63 && byte > 1 { Err(MalformedMessage) } else { Ok(value) };
            }
        }
        Err(MalformedMessage)
    }

    /// The next field's number and value, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, MalformedMessage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag).map_err(|_| MalformedMessage)? >> 3;
        let field = match (tag & 7) as u8 {
            VARINT => Field::Varint(self.varint()?),
            LENGTH_DELIMITED => {
                let length = usize::try_from(self.varint()?).map_err(|_| MalformedMessage)?;
                Field::Bytes(self.take(length)?)
            }
            1 => self.take(8).map(|_| Field::Fixed)?,
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(MalformedMessage),
        };
        if number == 0 {
            return Err(MalformedMessage);
        }
        Ok(Some((number, field)))
    }
}

/// Bytes that a varint takes.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | u64::from(VARINT));
    put_varint(out, value);
}

#[inline]
pub(super) fn put_bytes_field(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_length(out, number, value.len());
    out.extend_from_slice(value);
}

/// Writes the head of a length-delimited field; the caller writes the body next.
#[inline]
pub(super) fn put_length(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | u64::from(LENGTH_DELIMITED));
    put_varint(out, length as u64);
}

/// The bytes of a length-delimited field, including its head.
#[inline]
pub(super) fn bytes_field_len(number: u32, length: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(length as u64) + length
}
