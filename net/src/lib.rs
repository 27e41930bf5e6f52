//! QUIC and TLS for both sides: certificates, framed calls, sessions.
