//! Checks the authentication settings as a start would. Must not fetch keys from a server, nor keep anything.

use super::fetch::Fetch;
use super::jwt::{Bearer, validation};
use super::{Upkeep, apikey, certificate};
use crate::config::access::{Access as Config, Place};
use crate::reload::Reload;
use crate::served::Current;

/// All errors.
pub(crate) async fn faults(config: &Config, current: &Current) -> Vec<anyhow::Error> {
    let (mut found, mut upkeep) = (Vec::new(), Upkeep::default());
    if config.tokens() {
        found.extend(validation(config).err());
        for source in sources(config) {
            found.extend(Bearer::open(&source, current, &mut upkeep).await.err());
        }
        if let Some(Place::Url(url)) = &config.jwt_jwks {
            found.extend(Fetch::new(url, config.jwt_jwks_ca.as_deref()).err());
        }
    }
    if let Some(path) = &config.api_keys {
        let keys: anyhow::Result<Reload<apikey::Keys>> =
            Reload::open("API keys (GW_API_KEYS)", vec![path.clone()], apikey::Keys::reader(current));
        found.extend(keys.err());
    }
    found.extend(certificate::Clients::open(config, current, &mut upkeep).err());
    found
}

/// One configuration per file with keys for tokens, valid in everything else, so that each file is checked separately.
fn sources(config: &Config) -> Vec<Config> {
    let anyone = || Config {
        jwt_issuer: Some("anyone".to_owned()),
        jwt_audience: vec!["anyone".to_owned()],
        ..Config::default()
    };
    let file = config.jwt_jwks.clone().filter(|place| matches!(place, Place::File(_)));
    let keys = file.map(|place| Config { jwt_jwks: Some(place), ..anyone() });
    let secret =
        config.jwt_secret_file.clone().map(|path| Config { jwt_secret_file: Some(path), ..anyone() });
    keys.into_iter().chain(secret).collect()
}
