//! Limits on what callers send, and the field violations that are reported.

use std::ops::RangeInclusive;

use uuid::Uuid;
use wire::FieldViolation;
use wire::text::{is_tenant, printable};

/// Items of one order.
pub const ITEMS: RangeInclusive<usize> = 1..=500;
/// Adjustments of one request.
pub const ADJUSTMENTS: RangeInclusive<usize> = 1..=1_000;
/// Units of one item.
pub const QUANTITY: RangeInclusive<u32> = 1..=1_000_000;
/// The most units of one product on hand.
pub const ON_HAND: u32 = i32::MAX as u32;
/// Characters of a product id.
pub const PRODUCT_ID: usize = 64;
/// Characters of a customer id.
pub const CUSTOMER_ID: usize = wire::text::TENANT;
/// Characters of a request id.
pub const REQUEST_ID: usize = 64;
/// Characters of a reason.
pub const REASON: usize = 256;
/// Entries of a page.
pub const PAGE_SIZE: usize = 1_000;
/// Entries of a page by default.
pub const DEFAULT_PAGE_SIZE: usize = 50;
/// The longest time that a caller may ask a reservation to hold, in seconds; 0 is for ever.
pub const TTL_SECONDS: u32 = 86_400;

/// The most field violations that are reported for one request.
const FAULTS: usize = 1_000;

/// Collects the field violations of a request while its fields are read. `None` stands for an invalid field.
#[derive(Debug, Default)]
pub struct Reader {
    faults: Vec<FieldViolation>,
}

impl Reader {
    /// Reports a field violation.
    pub fn fault(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.faults.len() < FAULTS {
            self.faults.push(FieldViolation::new(field, description));
        }
    }

    /// The value, if every field is valid.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldViolation>> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(self.faults),
        }
    }

    /// An order id: a UUID.
    pub fn order_id(&mut self, field: &str, text: &str) -> Option<Uuid> {
        let id = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        if id.is_none() {
            self.fault(field, "must be a UUID such as 6b1d1a52-5dd0-5e5c-9c3a-2f3a8f3b8b51");
        }
        id
    }

    /// A customer id: 1 to 128 printable characters.
    pub fn customer_id(&mut self, field: &str, text: &str) -> Option<Box<str>> {
        if !is_tenant(text) {
            self.fault(field, "must be 1 to 128 printable characters, not only blanks");
            return None;
        }
        Some(text.into())
    }

    /// A request id: at most 64 of `[A-Za-z0-9_-]`; empty is allowed.
    pub fn request_id(&mut self, field: &str, text: &str) -> Option<Box<str>> {
        if text.len() > REQUEST_ID
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            self.fault(field, "must be at most 64 characters of [A-Za-z0-9_-]");
            return None;
        }
        Some(text.into())
    }

    /// A reason: at most 256 printable characters.
    pub fn reason(&mut self, field: &str, text: &str) -> Option<Box<str>> {
        if !printable(text, REASON) {
            self.fault(field, "must be at most 256 printable characters");
            return None;
        }
        Some(text.into())
    }

    /// A page size: 1 to 1,000, or 0 for 50.
    pub fn page_size(&mut self, field: &str, size: i32) -> Option<usize> {
        match usize::try_from(size) {
            Ok(0) => Some(DEFAULT_PAGE_SIZE),
            Ok(size) if size <= PAGE_SIZE => Some(size),
            _ => {
                self.fault(field, "must be 0 to 1,000");
                None
            }
        }
    }

    /// A product id.
    pub fn product_id(&mut self, field: impl Into<String>, text: &str) -> Option<Box<str>> {
        if !is_product_id(text) {
            self.fault(field, "must be [A-Za-z0-9][A-Za-z0-9._:/-]{0,63}");
            return None;
        }
        Some(text.into())
    }
}

/// Whether it is a product id: `[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}`.
pub fn is_product_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= PRODUCT_ID
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(b))
}
