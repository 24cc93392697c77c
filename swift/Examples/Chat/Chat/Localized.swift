import Foundation

/// Returns the text of `key` in the user's language, from Localizable.xcstrings. Each `%@` is
/// replaced by the next value, and `%2$@` by the second one. Views use `LocalizedStringKey`, which
/// a literal of `Text` or `Button` is.
func localized(_ key: String, _ values: String...) -> String {
    filled(Bundle.main.localizedString(forKey: key, value: nil, table: nil), values)
}

/// Replaces the placeholders of `text` by `values`. A placeholder without a value is left.
func filled(_ text: String, _ values: [String]) -> String {
    var result = ""
    var rest = text[...]
    var next = 0
    while let start = rest.firstIndex(of: "%") {
        result += rest[..<start]
        rest = rest[start...]
        guard let (length, index) = placeholder(rest) else {
            result.append("%")
            rest = rest.dropFirst()
            continue
        }
        let position = index ?? next
        next += 1
        result += values.indices.contains(position) ? values[position] : String(rest.prefix(length))
        rest = rest.dropFirst(length)
    }
    return result + rest
}

/// The length of the placeholder at the beginning of `text`, and its index from 0 if it has one.
private func placeholder(_ text: Substring) -> (length: Int, index: Int?)? {
    if text.hasPrefix("%@") { return (2, nil) }
    let digits = text.dropFirst().prefix { $0.isASCII && $0.isNumber }
    guard let number = Int(digits), number > 0, text.dropFirst(1 + digits.count).hasPrefix("$@")
    else { return nil }
    return (digits.count + 3, number - 1)
}
