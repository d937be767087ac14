//! Numbers of proto3 JSON, which may be written as strings. The types generated for JSON use this instead of the
//! library's type, which tries one form, formats an error about it, and tries the other.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, Visitor};

/// A number, or a string that holds one.
pub(crate) struct Number<T>(pub(crate) T);

struct Either<T>(PhantomData<T>);

impl<'de, T: FromStr + Deserialize<'de>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number<T>, D::Error> {
        deserializer.deserialize_any(Either(PhantomData)).map(Number)
    }
}

impl<'de, T: FromStr + Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::custom(format_args!("{text:?} is not a number of this type")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<i32> {
        serde_json::from_str(json).ok().map(|Number(number)| number)
    }

    #[test]
    fn a_number_may_be_a_string() {
        assert_eq!(["7", "-7", "\"7\"", "\"-7\""].map(read), [Some(7), Some(-7), Some(7), Some(-7)]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(["2147483648", "1.5", "\"seven\"", "true", "null", "[7]"].map(read), [None; 6]);
    }
}
