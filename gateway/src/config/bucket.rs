//! Flags about contracts that lie on NATS. Must not read a bucket.

use catalog_bucket::{ActiveSet, BucketName};
use clap::Args;

use crate::contracts::Outside;

/// Contracts of a bucket, beside those of files.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Source {
    /// Bucket on NATS with contracts to serve, as `gateway catalog push` maintains it; needs JetStream and --catalog-allow
    #[arg(long, env = "GW_CATALOG_BUCKET", value_parser = BucketName::parse, value_name = "NAME")]
    pub catalog_bucket: Option<BucketName>,
    /// Subjects that contracts of the bucket may use, separated by commas, like `bookstore.>`: routes with others are
    /// refused
    #[arg(long, env = "GW_CATALOG_ALLOW", value_delimiter = ',', value_parser = pattern, value_name = "SUBJECT")]
    pub catalog_allow: Vec<String>,
    /// Serve contracts of the bucket although callers are not authenticated: anybody who reaches the gateway can call
    /// what others publish there
    #[arg(long, env = "GW_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
}

impl Source {
    /// These sets, with what they may use.
    pub(crate) fn outside(&self, sets: Vec<ActiveSet>) -> Outside {
        Outside { sets, allow: self.catalog_allow.clone(), anonymous: self.allow_anonymous }
    }
}

/// A pattern of subjects, as NATS writes them.
fn pattern(text: &str) -> Result<String, String> {
    let tokens: Vec<_> = text.split('.').collect();
    let last = tokens.len() - 1;
    let is_token =
        |token: &str| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let fits = |(at, token): (usize, &&str)| match *token {
        "" => false,
        ">" => at == last,
        "*" => true,
        token => is_token(token),
    };
    match tokens.iter().enumerate().all(fits) {
        true => Ok(text.to_owned()),
        false => {
            Err("write tokens of [A-Za-z0-9_-] joined by dots, like bookstore.> or bookstore.*.get"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_one_of_nats() {
        assert!(["a", "a.>", "a.*.b", ">", "*"].iter().all(|text| pattern(text).is_ok()));
        assert!(["", "a.", ".a", "a.>.b", "a.b*", "$KV.>", "a b"].iter().all(|text| pattern(text).is_err()));
    }
}
