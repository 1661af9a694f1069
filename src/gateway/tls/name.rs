//! The common name in a certificate's subject. Nothing else of a certificate is read here: that it
//! is right has been found out by rustls before.
//!
//! A certificate is written in DER (X.690): each value is a tag, a length and a content, and most
//! contents are values behind each other. The way to the name (RFC 5280, 4.1):
//!
//! ```text
//! Certificate SEQUENCE
//!   TBSCertificate SEQUENCE
//!     version [0], may be missing · serialNumber · signature · issuer · validity
//!     subject SEQUENCE of SETs of SEQUENCEs
//!       type OBJECT IDENTIFIER, 2.5.4.3 for the common name
//!       value, a text of one of several kinds
//! ```

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// 2.5.4.3 as it is written.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What stands between the version and the subject.
const BEFORE_SUBJECT: usize = 4;

/// The common name of a certificate's subject, never empty. `None` if there is none, if it is of a
/// kind that is hardly in use any more (Teletex, BMP, Universal), or if there are several: nobody
/// is to choose which one a client is.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (whole, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, whole)?;
    if let Some((_, behind)) = expect(VERSION, rest) {
        rest = behind;
    }
    for _ in 0..BEFORE_SUBJECT {
        rest = next(rest)?.behind;
    }
    let (mut names, _) = expect(SEQUENCE, rest)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, behind) = expect(SET, names)?;
        names = behind;
        while !set.is_empty() {
            let (pair, others) = expect(SEQUENCE, set)?;
            set = others;
            let (kind, value) = expect(OBJECT_IDENTIFIER, pair)?;
            if kind == COMMON_NAME && found.replace(text(value)?).is_some() {
                return None;
            }
        }
    }
    found.filter(|name| !name.is_empty())
}

/// A value of DER, and what follows it.
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    behind: &'a [u8],
}

/// The first value. Lengths have at most four bytes: a certificate is smaller than that by far.
fn next(bytes: &[u8]) -> Option<Value<'_>> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
            (length, rest)
        }
        0x80 | 0x85..=0xff => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some(Value { tag, content, behind })
}

/// The content of the first value, which is of this kind, and what follows.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    next(bytes).filter(|value| value.tag == tag).map(|value| (value.content, value.behind))
}

fn text(bytes: &[u8]) -> Option<String> {
    let Value { tag, content, .. } = next(bytes)?;
    let is_text = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&tag);
    String::from_utf8(content.to_vec()).ok().filter(|_| is_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_other_names() {
        let long = "n".repeat(300);
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = DnValue::PrintableString("bob".try_into().unwrap());
        let cases = [
            (vec![(DnType::CommonName, utf8("alice"))], Some("alice")),
            (vec![(DnType::CommonName, printable)], Some("bob")),
            (vec![(DnType::CommonName, utf8("Zoë Ω"))], Some("Zoë Ω")),
            (vec![(DnType::CommonName, utf8(&long))], Some(&*long)),
            (
                vec![
                    (DnType::OrganizationName, utf8("somewhere")),
                    (DnType::CommonName, utf8("carol")),
                    (DnType::OrganizationalUnitName, utf8("else")),
                ],
                Some("carol"),
            ),
            (vec![(DnType::OrganizationName, utf8("alice"))], None),
            (vec![(DnType::CommonName, utf8(""))], None),
            (vec![], None),
        ];
        for (names, expected) in cases {
            let found = common_name(&certificate(&names));
            assert_eq!(found.as_deref(), expected, "{names:?}");
        }
    }

    /// The bytes of a value of less than 128 bytes.
    fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 0x80);
        [&[tag, length], &content[..]].concat()
    }

    /// A certificate, as far as to its subject, with these texts as common names.
    fn subject(texts: &[(u8, &[u8])]) -> Vec<u8> {
        let names = texts.iter().map(|(tag, text)| {
            let (kind, text) = (value(OBJECT_IDENTIFIER, &[&COMMON_NAME]), value(*tag, &[text]));
            value(SET, &[&value(SEQUENCE, &[&kind, &text])])
        });
        let names: Vec<Vec<u8>> = names.collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let before = value(0x02, &[&[1]]);
        let subject = value(SEQUENCE, &names);
        let parts: [&[u8]; 5] = [&before, &before, &before, &before, &subject];
        value(SEQUENCE, &[&value(SEQUENCE, &parts)])
    }

    #[test]
    fn who_has_several_names_or_an_odd_one_has_none() {
        let one: (u8, &[u8]) = (UTF8_STRING, b"alice");
        assert_eq!(common_name(&subject(&[one])).as_deref(), Some("alice"));
        assert_eq!(common_name(&subject(&[one, (UTF8_STRING, b"root")])), None);
        assert_eq!(common_name(&subject(&[one, one])), None);
        assert_eq!(common_name(&subject(&[(0x14, b"alice")])), None, "Teletex");
        assert_eq!(common_name(&subject(&[(UTF8_STRING, &[0xff])])), None, "no UTF-8");
    }

    #[test]
    fn what_is_cut_off_has_no_name() {
        let params = (DnType::CommonName, DnValue::Utf8String("alice".to_owned()));
        let whole = certificate(&[params]);
        for length in 0..whole.len() {
            assert_eq!(common_name(&whole[..length]), None, "{length} bytes");
        }
        for odd in [&[0x30, 0x80, 0, 0][..], &[0x30, 0x85, 0, 0, 0, 0, 0], &[0x30, 0xff]] {
            assert_eq!(common_name(odd), None);
        }
    }
}
