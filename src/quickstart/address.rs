//! The address that somebody asks for, looked at before anything is made with it.

use std::net::{IpAddr, Ipv6Addr, TcpListener};

use ductile_config::ListenAddr;

/// Reads `host:port`, with the host of an IPv6 address in brackets. The port must be one that can be told to others,
/// so not 0.
pub(crate) fn parse(text: &str) -> Result<ListenAddr, String> {
    let wrong = || format!("--listen {text:?} must be host:port with port 1 to 65535, such as 127.0.0.1:8080");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
        None if is_name(host) => host.to_owned(),
        None => return Err(wrong()),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(wrong)?;
    Ok(ListenAddr { host, port })
}

/// A host name or an IPv4 address. What is made of digits and dots only must be an address.
fn is_name(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    !host.is_empty() && host.bytes().all(legal) && (!numeric || host.parse::<IpAddr>().is_ok())
}

/// Whether a gateway could listen there now.
pub(super) fn try_bind(address: &ListenAddr) -> std::io::Result<()> {
    TcpListener::bind((address.host.as_str(), address.port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for text in ["127.0.0.1:8080", "localhost:1", "[::1]:65535", "my-host.example:80"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["", "foo", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+80"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["::1:8080", "[::g]:80", "a b:80", "a\"b:80", "http://x:80", "1.2.3:80", "256.0.0.1:80"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
