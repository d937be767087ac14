//! Warnings about files with secrets that every user of this machine may read. Must not read them.

use std::path::Path;

use super::Serve;

impl Serve {
    /// Warns about each such file; files for NATS are checked where they are read.
    pub(crate) fn warn_of_exposed_secrets(&self) {
        for (variable, file) in self.secrets().filter(|(_, file)| cli::file::is_newly_exposed(file)) {
            tracing::warn!(
                "{} ({variable}) contains a secret, and every user of this machine may read it: chmod o=",
                file.display()
            );
        }
    }

    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("GW_TLS_KEY", &self.tls.tls_key), ("GW_JWT_SECRET_FILE", &self.access.jwt_secret_file)];
        files.into_iter().filter_map(|(variable, file)| Some((variable, file.as_deref()?)))
    }
}
