use std::fmt;
use std::sync::Arc;

/// A fresh id: UUIDv7 text, lower-case and hyphenated, so that ids of one process sort by creation.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().hyphenated().to_string()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Id of a job. New ones are UUIDv7; any text that an older database holds is accepted.
    JobId
}

text_id! {
    /// Id of a configuration snapshot: `cfg_` and the 32 hex digits of a UUIDv7.
    SnapshotId
}

impl JobId {
    /// A new, never used id.
    #[must_use]
    pub fn generate() -> Self {
        Self(new_id().into())
    }
}

impl SnapshotId {
    /// A new, never used id.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("cfg_{}", uuid::Uuid::now_v7().simple()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_one_after_the_other_sort_by_creation() {
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::generate()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ids[0].as_str().len(), 36);
        assert_eq!(&ids[0].as_str()[14..15], "7");
    }

    #[test]
    fn snapshot_ids_have_their_prefix_and_32_digits() {
        let id = SnapshotId::generate();
        let digits = id.as_str().strip_prefix("cfg_").unwrap();
        assert_eq!(digits.len(), 32);
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
