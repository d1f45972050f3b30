//! The binary protocol is not spoken. Its clients are told so in their own tongue, rather than
//! left to wait for an answer.

/// First byte of every binary request (memcached's protocol_binary.h,
/// `PROTOCOL_BINARY_REQ`); no text command begins with it.
pub const MAGIC: u8 = 0x80;

/// Length of the header that a request begins with.
pub const HEADER_LEN: usize = 24;

const RESPONSE_MAGIC: u8 = 0x81;

/// `PROTOCOL_BINARY_RESPONSE_NOT_SUPPORTED`.
const NOT_SUPPORTED: [u8; 2] = [0x00, 0x83];

/// Shown by clients beside the status.
const EXPLANATION: &[u8] = b"The binary protocol is not spoken: use the text protocol";

/// The answer to a binary request: not supported, and why.
pub fn refusal(request: &[u8; HEADER_LEN]) -> Vec<u8> {
    let mut response = vec![0; HEADER_LEN];
    response[0] = RESPONSE_MAGIC;
    // The command, and what the client told its request by.
    response[1] = request[1];
    response[6..8].copy_from_slice(&NOT_SUPPORTED);
    response[8..12].copy_from_slice(&(EXPLANATION.len() as u32).to_be_bytes());
    response[12..16].copy_from_slice(&request[12..16]);
    response.extend_from_slice(EXPLANATION);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_well_formed_response_to_its_request() {
        let mut request = [0; HEADER_LEN];
        (request[0], request[1]) = (MAGIC, 0x0b);
        request[12..16].copy_from_slice(b"abcd");
        let response = refusal(&request);
        assert_eq!(response[..2], [0x81, 0x0b]);
        assert_eq!(response[6..8], [0x00, 0x83]);
        assert_eq!(response[8..12], [0, 0, 0, (response.len() - HEADER_LEN) as u8]);
        assert_eq!(&response[12..16], b"abcd");
    }
}
