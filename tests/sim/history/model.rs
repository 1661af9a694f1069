//! A store of many versions that anyone can check by reading it. Shares no line with the product.
#[derive(Default, Debug)]
pub(crate) struct Model;
