import Foundation

/// Addresses of servers.
enum WebAddress {
    /// Refuses addresses other than `https`, and `http` on this device. App Transport Security
    /// allows the same.
    static func check(_ url: URL, _ name: String) throws {
        guard isAllowed(url), url.user == nil, url.password == nil else {
            let scheme = url.scheme ?? "no scheme"
            let host = url.host(percentEncoded: false) ?? "no host"
            throw OpenELMError.invalidOption(
                name: name,
                message: "\(name): expected an https address without a user name, or http on "
                    + "localhost, found \(scheme) and \(host)")
        }
    }

    /// True for `https`, and for `http` on this device.
    static func isAllowed(_ url: URL) -> Bool {
        guard let host = url.host(percentEncoded: false)?.lowercased(), !host.isEmpty else {
            return false
        }
        switch url.scheme?.lowercased() {
        case "https": return true
        case "http": return ["localhost", "127.0.0.1", "::1", "[::1]"].contains(host)
        default: return false
        }
    }

    /// Scheme, host and port; a token is sent to one origin only.
    static func origin(_ url: URL?) -> String {
        guard let url, let scheme = url.scheme?.lowercased(),
            let host = url.host(percentEncoded: false)?.lowercased()
        else { return "" }
        return "\(scheme)://\(host):\(url.port ?? (scheme == "https" ? 443 : 80))"
    }

    /// The origin in errors, without a usual port. Addresses of redirects are signed, so errors
    /// have no whole address.
    static func shown(_ url: URL?) -> String {
        let origin = origin(url)
        return origin.hasSuffix(":443") ? String(origin.dropLast(4)) : origin
    }

    /// `text` with percent-encoding for a part of a path, or for a path with `/`.
    static func encoded(_ text: String, isPath: Bool = false) -> String {
        var encoded = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
                UInt8(ascii: "."), UInt8(ascii: "~"):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            case UInt8(ascii: "/") where isPath: encoded.append("/")
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                encoded += digits.count < 2 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return encoded
    }
}
