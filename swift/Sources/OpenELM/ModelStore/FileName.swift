import Foundation

/// Names of files that a server or an app gives, before they become paths.
enum FileName {
    /// True for a relative path that stays in its folder: no `..`, no absolute path, no empty or
    /// hidden part, no backslash, colon or control character. Hidden names are the store's own.
    static func isSafe(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return escaped(name).utf8.count <= 200
            && parts.allSatisfy { part in
                !part.isEmpty && !part.hasPrefix(".")
                    && part.unicodeScalars.allSatisfy { scalar in
                        scalar != "\\" && scalar != ":"
                            && scalar.properties.generalCategory != .control
                    }
            }
    }

    /// The first name that is no safe path, that occurs twice, or that another name needs as a
    /// folder. Names that differ in case only are one file on some disks.
    static func firstUnsafe(_ names: [String]) -> String? {
        if let name = names.first(where: { !isSafe($0) }) { return name }
        var files = Set<String>()
        var folders = Set<String>()
        for name in names {
            guard files.insert(name.lowercased()).inserted else { return name }
            var folder = name.lowercased()[...]
            while let end = folder.lastIndex(of: "/") {
                folder = folder[..<end]
                folders.insert(String(folder))
            }
        }
        return names.first { folders.contains($0.lowercased()) }
    }

    /// The name as one part of a path.
    static func escaped(_ name: String) -> String {
        name.replacing("%", with: "%25").replacing("/", with: "%2F")
    }
}
