//! The age envelope.

use std::io::{self, Read as _};
use std::path::Path;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, Decryptor, Encryptor};
use ductile_model::age_file;
use zeroize::Zeroizing;

use crate::VaultError;
use crate::key::Identities;

/// Encrypts what `write` produces to all identities, armored. The plaintext is never held as a whole.
pub(crate) fn encrypt(
    identities: &Identities,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let recipients = identities.iter().map(|identity| identity.public() as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(|error| io::Error::other(error.to_string()))?;
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
    let mut stream = encryptor.wrap_output(armor)?;
    write(&mut stream)?;
    // Never flushed: the armor would pad in the middle of the text.
    stream.finish()?.finish()
}

impl Identities {
    /// Decrypts an age file (armored or binary) that was read from `path`, wholly or not at all.
    ///
    /// # Errors
    /// Not encrypted, for another key, or damaged.
    pub fn decrypt(&self, path: &Path, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let Some(envelope) = age_file(content) else {
            return Err(VaultError::refused(path, "not an age-encrypted file"));
        };
        // Plaintext is shorter than its envelope: with this capacity the buffer never moves.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(content.len() + 1));
        self.decrypt_into(envelope, &mut plaintext).map_err(|error| VaultError::refused(path, explain(&error)))?;
        Ok(plaintext)
    }

    fn decrypt_into(&self, content: &[u8], plaintext: &mut Vec<u8>) -> Result<(), DecryptError> {
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(content))?;
        let identities = self.iter().map(|identity| identity.private() as &dyn age::Identity);
        let mut stream = decryptor.decrypt(identities)?;
        // Chunks arrive before the end is known to be there: nothing is used until all of them are read.
        stream.read_to_end(plaintext)?;
        Ok(())
    }
}

fn explain(error: &DecryptError) -> &'static str {
    match error {
        DecryptError::NoMatchingKeys => "none of the identities in the key file opens it",
        DecryptError::UnknownFormat => "encrypted in an unknown version of the age format",
        DecryptError::InvalidHeader | DecryptError::InvalidMac => "the age header is damaged",
        _ => "the ciphertext is corrupt or truncated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NewIdentity;

    #[test]
    fn more_than_one_chunk_goes_round() {
        let path = Path::new("k");
        let identities = Identities::parse(path, NewIdentity::generate().key_file.expose().as_bytes()).unwrap();
        for length in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let sealed =
                encrypt(&identities, |out| text.chunks(1000).try_for_each(|part| out.write_all(part))).unwrap();
            assert!(*identities.decrypt(path, &sealed).unwrap() == text, "{length}");
        }
    }
}
