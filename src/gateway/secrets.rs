//! Opens the vault for a load and keeps it for the generation that is made from it.

use std::sync::{Arc, Mutex, PoisonError};

use ductile_config::{Purpose, SecretProjection, SecretProvider, Standing, VaultPlaces};
use ductile_model::{Problem, Secret};
use ductile_vault::{Vault, find_key};

/// Opens the vault at most once per load; the opened vault can be taken afterwards.
#[derive(Default)]
pub(crate) struct VaultSource {
    opened: Mutex<Option<Vault>>,
}

impl VaultSource {
    /// The vault that the load opened, if any.
    pub(crate) fn opened(&self) -> Option<Vault> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SecretProvider for VaultSource {
    fn open(&self, places: &VaultPlaces, purpose: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        let problem = |error: ductile_vault::VaultError| Problem::new("vault", error.to_string());
        let key = find_key(places.named_key.as_deref(), &places.default_keys).map_err(problem)?;
        match places.vault_file.symlink_metadata() {
            Ok(_) => {}
            // Only a file that is not there means "no vault": one that can not be looked at must not.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Problem::new("vault", error.to_string()).at_file(&places.vault_file, None));
            }
        }
        let Some((_, identities)) = key else {
            return match purpose {
                Purpose::Inspecting => Ok(None),
                Purpose::Admitting => Err(Problem::new(
                    "vault",
                    "vault present but no age key found: name it with secrets.age_key_file or DUCTILE_AGE_KEY_FILE",
                )
                .at_file(&places.vault_file, None)),
            };
        };
        let vault = Vault::open(&places.vault_file, &identities).map_err(problem)?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(vault.clone());
        Ok(Some(Arc::new(Projection(vault))))
    }
}

struct Projection(Vault);

impl SecretProjection for Projection {
    fn resolve(&self, name: &str) -> Result<Secret, &'static str> {
        self.0.resolve(name)
    }

    fn fingerprint_key(&self) -> [u8; 32] {
        self.0.nonce()
    }

    fn standing(&self, principal: &str) -> Standing {
        match self.0.principal_kind(principal) {
            Some("plugin") => Standing::Plugin,
            Some("consumer") => Standing::Consumer,
            Some("gateway") => Standing::Gateway,
            Some(_) => Standing::Untold,
            None => Standing::Unregistered,
        }
    }
}
