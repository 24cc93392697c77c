import Foundation

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

#if canImport(Glibc)
    private let noSignal = Int32(MSG_NOSIGNAL)
#else
    private let noSignal = Int32(0)
#endif
private let nonBlocking = Int32(MSG_DONTWAIT)

/// A web server on a port of this machine, with a thread per connection and a request per
/// connection.
final class TestServer: @unchecked Sendable {
    struct Request: Sendable {
        let method: String
        let path: String
        let query: String
        /// By name in lower case.
        let headers: [String: String]
    }

    struct Response: Sendable {
        var status = 200
        var headers: [String: String] = [:]
        var body = Data()
        /// The connection ends after this number of bytes of the body.
        var cut: Int?
        /// The rest of the body waits after `cut` bytes until the server ends.
        var holds = false
        /// Without `Content-Length`, the end of the connection ends the body.
        var hasLength = true
    }

    let port: UInt16
    private let socket: Int32
    private let lock = NSLock()
    private var log: [Request] = []
    private var handler: @Sendable (Request) -> Response
    private var bytes = 0
    private var isEnded = false
    private var endedHolds = 0

    init(_ handler: @escaping @Sendable (Request) -> Response = { _ in Response(status: 404) }) {
        self.handler = handler
        #if canImport(Glibc)
            let kind = Int32(SOCK_STREAM.rawValue)
        #else
            let kind = SOCK_STREAM
        #endif
        let socket = Self.listen(kind)
        self.socket = socket
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutableBytes(of: &address) { bytes in
            guard let place = bytes.bindMemory(to: sockaddr.self).baseAddress else { return }
            _ = getsockname(socket, place, &length)
        }
        port = UInt16(bigEndian: address.sin_port)
        Thread.detachNewThread { [weak self] in
            while true {
                let connection = accept(socket, nil, nil)
                guard connection >= 0, let self else { break }
                Thread.detachNewThread { self.serve(connection) }
            }
        }
    }

    deinit { end() }

    var url: URL { URL(string: "http://127.0.0.1:\(port)") ?? URL(filePath: "/") }
    var requests: [Request] { lock.withLock { log } }
    /// The number of bytes of bodies that were sent.
    var sent: Int { lock.withLock { bytes } }

    func handle(_ handler: @escaping @Sendable (Request) -> Response) {
        lock.withLock { self.handler = handler }
    }

    /// Ends the connections whose bodies are held.
    func endConnections() { lock.withLock { endedHolds += 1 } }

    /// Accepts no more connections and ends those that wait.
    func end() {
        let isFirst = lock.withLock {
            defer { isEnded = true }
            return !isEnded
        }
        guard isFirst else { return }
        shutdown(socket, Int32(SHUT_RDWR))
        close(socket)
    }

    private static func listen(_ kind: Int32) -> Int32 {
        #if canImport(Glibc)
            let socket = Glibc.socket(AF_INET, kind, 0)
        #else
            let socket = Darwin.socket(AF_INET, kind, 0)
        #endif
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        withUnsafeBytes(of: &address) { bytes in
            guard let place = bytes.bindMemory(to: sockaddr.self).baseAddress else { return }
            _ = bind(socket, place, socklen_t(bytes.count))
        }
        #if canImport(Glibc)
            _ = Glibc.listen(socket, 64)
        #else
            _ = Darwin.listen(socket, 64)
        #endif
        return socket
    }

    private func serve(_ connection: Int32) {
        defer { close(connection) }
        guard let request = read(connection) else { return }
        let handler = lock.withLock {
            log.append(request)
            return self.handler
        }
        let response = handler(request)
        var head = "HTTP/1.1 \(response.status) Status\r\nConnection: close\r\n"
        for (name, value) in response.headers { head += "\(name): \(value)\r\n" }
        if response.hasLength { head += "Content-Length: \(response.body.count)\r\n" }
        guard write(connection, Data((head + "\r\n").utf8)), request.method != "HEAD" else {
            return
        }
        let holds = lock.withLock { endedHolds }
        let first = response.body.prefix(response.cut ?? response.body.count)
        guard write(connection, first, counts: true) else { return }
        guard response.holds else { return }
        // Ends when the client or the server does.
        var byte = UInt8(0)
        while !lock.withLock({ isEnded || endedHolds > holds }) {
            let count = recv(connection, &byte, 1, nonBlocking)
            if count == 0 || count < 0 && errno != EAGAIN { return }
            usleep(5000)
        }
    }

    private func read(_ connection: Int32) -> Request? {
        var data = Data()
        var byte = UInt8(0)
        while !data.suffix(4).elementsEqual([13, 10, 13, 10]) {
            guard data.count < 1 << 16, recv(connection, &byte, 1, 0) == 1 else { return nil }
            data.append(byte)
        }
        let lines = String(decoding: data, as: UTF8.self).components(separatedBy: "\r\n")
        let words = lines[0].split(separator: " ")
        guard words.count == 3 else { return nil }
        let address = words[1].split(separator: "?", maxSplits: 1)
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let pair = line.split(separator: ":", maxSplits: 1)
            guard pair.count == 2 else { continue }
            headers[pair[0].lowercased()] = pair[1].trimmingCharacters(in: .whitespaces)
        }
        return Request(
            method: String(words[0]), path: String(address.first ?? ""),
            query: address.count > 1 ? String(address[1]) : "", headers: headers)
    }

    private func write(_ connection: Int32, _ data: Data, counts: Bool = false) -> Bool {
        #if !canImport(Glibc)
            var on = Int32(1)
            setsockopt(connection, SOL_SOCKET, SO_NOSIGPIPE, &on, socklen_t(4))
        #endif
        var rest = data[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                send(connection, $0.baseAddress, $0.count, noSignal)
            }
            guard count > 0 else { return false }
            if counts { lock.withLock { bytes += count } }
            rest = rest.dropFirst(count)
        }
        return true
    }
}

extension TestServer.Response {
    /// A file, or the part of it that `request` names.
    static func file(
        _ body: Data, etag: String? = nil, for request: TestServer.Request,
        ignoresRange: Bool = false
    ) -> Self {
        var response = Self(body: body)
        if let etag { response.headers["ETag"] = etag }
        guard !ignoresRange, let range = request.headers["range"],
            let start = Int(range.dropFirst("bytes=".count).dropLast()), start < body.count,
            request.headers["if-range"] == nil || request.headers["if-range"] == etag
        else { return response }
        response.status = 206
        response.headers["Content-Range"] = "bytes \(start)-\(body.count - 1)/\(body.count)"
        response.body = body.dropFirst(start)
        return response
    }
}
