# Work in progress: run as root in fresh network, mount and process namespaces, D = a folder with bin/ and internet.toml.
ip link set lo up
unshare -n sleep 100 & R=$!; unshare -n sleep 100 & I=$!
sleep 0.3
ip link add lan0 type veth peer name hh netns $R
ip addr add 10.9.0.2/24 dev lan0; ip link set lan0 up
ip link add pub0 type dummy; ip addr add 198.51.100.7/32 dev pub0; ip link set pub0 up
nsenter -n -t $R sh -c 'ip addr add 10.9.0.1/24 dev hh; ip link set hh up; ip link set lo up'
ip route add default via 10.9.0.1
nsenter -n -t $R ip link add upp type veth peer name rr netns $I
nsenter -n -t $R sh -c 'ip addr add 203.0.113.1/24 dev upp; ip link set upp up; sysctl -qw net.ipv4.ip_forward=1'
nsenter -n -t $I sh -c 'ip addr add 203.0.113.9/24 dev rr; ip link set rr up; ip route add default via 203.0.113.1'
cat > $D/srv2.py <<'P'
import socketserver,threading,sys
class T(socketserver.StreamRequestHandler):
    def handle(s): s.wfile.write(b"reached "+sys.argv[1].encode()+b"\n")
class U(socketserver.BaseRequestHandler):
    def handle(s):
        d,k=s.request; q=d[:2]+b"\x81\x80\x00\x01\x00\x01\0\0\0\0"+d[12:12+d[12:].index(b"\0")+5]+b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4"+bytes([203,0,113,9])
        k.sendto(q,s.client_address)
socketserver.TCPServer.allow_reuse_address=True
threading.Thread(target=socketserver.ThreadingTCPServer(("",8000),T).serve_forever).start()
socketserver.ThreadingUDPServer(("",53),U).serve_forever()
P
nsenter -n -t $I /usr/bin/python3 $D/srv2.py internet & nsenter -n -t $R /usr/bin/python3 $D/srv2.py lan & /usr/bin/python3 $D/srv2.py host &
echo "nameserver 10.9.0.1" > $D/resolv; mount --bind $D/resolv $(readlink -f /etc/resolv.conf)
sleep 1.5
cat > $D/cl2.py <<'P'
import socket,sys
for a in sys.argv[1:]:
  for bind in (0,1):
    s=socket.socket(); s.settimeout(2)
    try:
        if bind: s.setsockopt(socket.SOL_SOCKET,25,[n for i,n in socket.if_nameindex() if n!="lo"][0].encode() if bind==2 else b"eth0")
        s.connect((a,8000)); print(a,bind,s.recv(50))
    except Exception as e: print(a,bind,type(e).__name__,e)
for n in ("friend.example",):
    try: print(n,socket.gethostbyname(n))
    except Exception as e: print(n,e)
P
cp $D/cl2.py /tmp/clx.py; A="203.0.113.9 127.0.0.1 10.9.0.2 10.9.0.1 198.51.100.7 203.0.113.1 192.0.0.1 192.0.0.5 192.0.0.2"
echo HOST; timeout 20 /usr/bin/python3 $D/cl2.py 203.0.113.9 10.9.0.1 198.51.100.7 | grep " 0 "
cd /
code=$(cat $D/cl2.py | base64 -w0)
for who in user; do
echo "== $who"
[ $who = user ] && pre="setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all" || pre=
time $pre env HOME=$D/home timeout 60 $D/bin/p2p-worker exec --profile $D/internet.toml -e "cat(system(\"echo $code | base64 -d > /tmp/c.py; /usr/bin/python3 /tmp/c.py $A; cat /proc/net/route\", intern=TRUE, ignore.stderr=TRUE), sep='\\n')" 2>&1 | tail -40

done
kill -9 $(jobs -p)
