//! Query parameters.

use std::borrow::Cow;

use crate::error::ApiError;

/// The parameters of a request, decoded. Of a repeated one the last counts; unknown ones are ignored.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(raw: Option<&'a str>) -> Self {
        Self(raw.map_or_else(Vec::new, |raw| url::form_urlencoded::parse(raw.as_bytes()).collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// A parameter that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// `true` or `false`; absent is `false`.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::parameter(name, format!("{name} must be true or false"))),
        }
    }

    /// The same query with one parameter set to another value.
    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.0.iter().filter(|(key, _)| key != name) {
            out.append_pair(key, value);
        }
        out.append_pair(name, value);
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_true_or_false_and_nothing_else() {
        let query = Query::parse(Some("sync=true&async=false&tree=1"));
        assert!(query.flag("sync").unwrap());
        assert!(!query.flag("async").unwrap());
        assert!(!query.flag("absent").unwrap());
        assert!(query.flag("tree").is_err());
    }

    #[test]
    fn a_changed_query_keeps_the_other_parameters() {
        let query = Query::parse(Some("plugin=a%20b&cursor=old&limit=5"));
        assert_eq!(query.with("cursor", "new"), "plugin=a+b&limit=5&cursor=new");
    }
}
