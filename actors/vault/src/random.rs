//! Values made by the gateway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ductile_model::Secret;
use zeroize::Zeroizing;

use crate::VaultError;

/// Bytes behind a minted value, and of the nonce.
pub(crate) const MINTED_BYTES: usize = 32;

/// A fresh value: 32 bytes of the operating system's generator, as 43 characters of unpadded base64url.
pub(crate) fn mint() -> Result<Secret, VaultError> {
    let mut bytes = Zeroizing::new([0_u8; MINTED_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| VaultError::Random(error.to_string()))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// The bytes of a minted value, if it is one.
pub(crate) fn unmint(text: &Secret) -> Option<Zeroizing<[u8; MINTED_BYTES]>> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.expose()).ok()?);
    let bytes: &[u8; MINTED_BYTES] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_value_has_43_characters_and_gives_its_bytes_back() {
        let (one, two) = (mint().unwrap(), mint().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert!(one != two, "two values are alike");
        assert_eq!(URL_SAFE_NO_PAD.encode(unmint(&one).unwrap().as_slice()), one.expose());
    }

    #[test]
    fn what_is_not_32_bytes_is_no_minted_value() {
        for text in ["", "AAAA", &"A".repeat(44), "not base64 at all, and much too long to be it"] {
            assert!(unmint(&Secret::new(text.to_owned())).is_none(), "{text}");
        }
    }
}
