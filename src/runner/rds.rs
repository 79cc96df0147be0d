//! Writes R objects as RDS: "R Internals", section 1.8 (serialization formats), XDR, version 2, not compressed. Only what
//! a result that we make ourselves needs. There is no reader: the supervisor never parses R data.

/// A value of R without its attributes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// `NULL`.
    Null,
    /// A logical vector.
    Logical(Vec<bool>),
    /// An integer vector.
    Integer(Vec<i32>),
    /// A numeric vector.
    Real(Vec<f64>),
    /// A character vector; `None` is `NA`.
    Text(Vec<Option<String>>),
    /// A list.
    List(Vec<Object>),
}

/// A value of R with its attributes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    data: Data,
    attributes: Vec<(&'static str, Object)>,
}

impl From<Data> for Object {
    fn from(data: Data) -> Self {
        Self { data, attributes: Vec::new() }
    }
}

impl Object {
    /// A character vector of one element.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Data::Text(vec![Some(text.into())]).into()
    }

    /// A character vector.
    pub(crate) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Data::Text(texts.into_iter().map(|text| Some(text.to_owned())).collect()).into()
    }

    /// A list with names.
    pub(crate) fn named_list(fields: Vec<(&'static str, Object)>) -> Self {
        let names = Self::texts(fields.iter().map(|(name, _)| *name));
        let values = fields.into_iter().map(|(_, value)| value).collect();
        Self::from(Data::List(values)).with("names", names)
    }

    /// The object with one more attribute.
    pub(crate) fn with(mut self, name: &'static str, value: Object) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// The object with an S3 class.
    pub(crate) fn of_class<'a>(self, class: impl IntoIterator<Item = &'a str>) -> Self {
        self.with("class", Self::texts(class))
    }
}

const SYMBOL: u32 = 1;
const PAIR_LIST: u32 = 2;
const STRING: u32 = 9;
const NULL: u32 = 254;
const IS_OBJECT: u32 = 1 << 8;
const HAS_ATTRIBUTES: u32 = 1 << 9;
const HAS_TAG: u32 = 1 << 10;
/// The `gp` bit of a CHARSXP that says that it is UTF-8, at its place in the flags.
const UTF8: u32 = 1 << (12 + 3);
/// The same for ASCII.
const ASCII: u32 = 1 << (12 + 6);
/// R 3.5.0 writes, R 2.3.0 and newer can read.
const HEADER: [u32; 3] = [2, 0x0003_0500, 0x0002_0300];

/// The bytes of an RDS file that holds this object.
pub(crate) fn to_bytes(object: &Object) -> Vec<u8> {
    let mut writer = Writer(b"X\n".to_vec());
    HEADER.into_iter().for_each(|word| writer.word(word));
    writer.object(object);
    writer.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: u32) {
        self.0.extend(word.to_be_bytes());
    }

    /// Lengths here are of what we wrote ourselves, far below 2^31.
    fn length(&mut self, length: usize) {
        self.word(u32::try_from(length).unwrap_or(0));
    }

    fn object(&mut self, object: &Object) {
        let Object { data, attributes } = object;
        let is_object = attributes.iter().any(|(name, _)| *name == "class");
        let flags = if is_object { IS_OBJECT } else { 0 } | if attributes.is_empty() { 0 } else { HAS_ATTRIBUTES };
        match data {
            Data::Null => return self.word(NULL),
            Data::Logical(values) => self.vector(10 | flags, values, |w, value| w.word(u32::from(*value))),
            Data::Integer(values) => self.vector(13 | flags, values, |w, value| w.0.extend(value.to_be_bytes())),
            Data::Real(values) => self.vector(14 | flags, values, |w, value| w.0.extend(value.to_be_bytes())),
            Data::Text(values) => self.vector(16 | flags, values, |w, value| w.string(value.as_deref())),
            Data::List(values) => self.vector(19 | flags, values, Self::object),
        }
        self.attributes(attributes);
    }

    fn vector<T>(&mut self, kind: u32, values: &[T], mut element: impl FnMut(&mut Self, &T)) {
        self.word(kind);
        self.length(values.len());
        values.iter().for_each(|value| element(self, value));
    }

    fn string(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            self.word(STRING);
            return self.word(u32::MAX);
        };
        self.word(STRING | if text.is_ascii() { ASCII } else { UTF8 });
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    /// A pair list. Symbols are written in full each time, which a reader takes as well as a reference.
    fn attributes(&mut self, attributes: &[(&'static str, Object)]) {
        if attributes.is_empty() {
            return;
        }
        for (name, value) in attributes {
            self.word(PAIR_LIST | HAS_TAG);
            self.word(SYMBOL);
            self.string(Some(name));
            self.object(value);
        }
        self.word(NULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_with_a_class_is_as_r_writes_it() {
        // serialize(structure(1L, class = "a"), NULL, version = 2), but for the version of R that wrote it.
        let object = Object::from(Data::Integer(vec![1])).of_class(["a"]);
        let mut expected = b"X\n\0\0\0\x02\0\x03\x05\0\0\x02\x03\0".to_vec();
        expected.extend(b"\0\0\x03\x0d\0\0\0\x01\0\0\0\x01");
        expected.extend(b"\0\0\x04\x02\0\0\0\x01\0\x04\0\x09\0\0\0\x05class");
        expected.extend(b"\0\0\0\x10\0\0\0\x01\0\x04\0\x09\0\0\0\x01a\0\0\0\xfe");
        assert_eq!(to_bytes(&object), expected);
    }

    #[test]
    fn text_says_how_it_is_encoded() {
        let bytes = to_bytes(&Data::Text(vec![None, Some("ä".into())]).into());
        assert!(bytes.ends_with(b"\0\0\0\x10\0\0\0\x02\0\0\0\x09\xff\xff\xff\xff\0\0\x80\x09\0\0\0\x02\xc3\xa4"));
    }
}
